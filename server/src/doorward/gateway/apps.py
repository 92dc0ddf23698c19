"""The gateway room."""

from django.apps import AppConfig


class GatewayConfig(AppConfig):
    """The door for devices."""

    name = "doorward.gateway"
    label = "gateway"
