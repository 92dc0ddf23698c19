"""The portal room."""

from django.apps import AppConfig


class PortalConfig(AppConfig):
    """Pages for people."""

    name = "doorward.portal"
    label = "portal"
