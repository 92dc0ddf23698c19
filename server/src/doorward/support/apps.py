"""The support room."""

from django.apps import AppConfig


class SupportConfig(AppConfig):
    """Tickets and help."""

    name = "doorward.support"
    label = "support"
