"""The notices room."""

from django.apps import AppConfig


class NoticesConfig(AppConfig):
    """What we tell whom."""

    name = "doorward.notices"
    label = "notices"
