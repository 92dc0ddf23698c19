"""The reports room."""

from django.apps import AppConfig


class ReportsConfig(AppConfig):
    """What devices found."""

    name = "doorward.reports"
    label = "reports"
