"""The devices room."""

from django.apps import AppConfig


class DevicesConfig(AppConfig):
    """Computers and phones."""

    name = "doorward.devices"
    label = "devices"
