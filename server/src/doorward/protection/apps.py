"""The protection room."""

from django.apps import AppConfig


class ProtectionConfig(AppConfig):
    """What devices must do."""

    name = "doorward.protection"
    label = "protection"
