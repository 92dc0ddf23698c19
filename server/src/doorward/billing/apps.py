"""The billing room."""

from django.apps import AppConfig


class BillingConfig(AppConfig):
    """What is paid for and what it entitles to."""

    name = "doorward.billing"
    label = "billing"

    def ready(self) -> None:
        """Have every new account start with the default plan."""
        from doorward.accounts import signup
        from doorward.billing import entitlement, privacy

        signup.at_founding(entitlement.start_default)
        privacy.register()
