"""The console room."""

from django.apps import AppConfig


class ConsoleConfig(AppConfig):
    """Pages for operators."""

    name = "doorward.console"
    label = "console"
