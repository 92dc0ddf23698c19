"""The accounts room."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """People, the accounts they own, and proving who they are."""

    name = "doorward.accounts"
    label = "accounts"

    def ready(self) -> None:
        """Watch what allauth tells of."""
        from doorward.accounts import activity

        activity.watch()
