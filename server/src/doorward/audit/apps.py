"""The audit room."""

from django.apps import AppConfig


class AuditConfig(AppConfig):
    """What happened."""

    name = "doorward.audit"
    label = "audit"
