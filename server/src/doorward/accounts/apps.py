"""The accounts room."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """People, the accounts they own, and proving who they are."""

    name = "doorward.accounts"
    label = "accounts"

    def ready(self) -> None:
        """Have second steps kept our way, and watch what allauth tells of."""
        from doorward.accounts import activity, two_factor_events
        from doorward.accounts.factors import allauth_ways

        allauth_ways.install()
        activity.watch()
        two_factor_events.watch()
