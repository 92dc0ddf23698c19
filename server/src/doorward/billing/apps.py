"""The billing room."""

from django.apps import AppConfig


class BillingConfig(AppConfig):
    """What is paid for and what it entitles to."""

    name = "doorward.billing"
    label = "billing"
