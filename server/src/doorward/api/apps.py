"""The api room."""

from django.apps import AppConfig


class ApiConfig(AppConfig):
    """JSON for apps and scripts."""

    name = "doorward.api"
    label = "api"
