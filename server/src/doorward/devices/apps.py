"""The devices room."""

from django.apps import AppConfig


class DevicesConfig(AppConfig):
    """Computers and phones."""

    name = "doorward.devices"
    label = "devices"

    def ready(self) -> None:
        """Have devices stay or go with their member, and take part in exports and deletions."""
        from doorward.accounts import members
        from doorward.devices import parting, privacy

        members.at_parting(parting.part)
        members.at_sharing(parting.share)
        privacy.register()
