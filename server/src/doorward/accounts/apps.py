"""The accounts room."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """People, the accounts they own, and proving who they are."""

    name = "doorward.accounts"
    label = "accounts"

    def ready(self) -> None:
        """Have second steps kept our way, and watch what allauth tells of."""
        from doorward.accounts import (
            activity,
            allauth_ways,
            forms,
            privacy_tables,
            recovery_events,
            staying_gone,
            two_factor_events,
        )

        staying_gone.install()
        allauth_ways.install()
        forms.install()
        activity.watch()
        two_factor_events.watch()
        recovery_events.watch()
        privacy_tables.register()
