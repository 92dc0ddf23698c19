"""The devices room."""

from django.apps import AppConfig


class DevicesConfig(AppConfig):
    """Computers and phones."""

    name = "doorward.devices"
    label = "devices"

    def ready(self) -> None:
        """Have devices stay or go when their member leaves an account."""
        from doorward.accounts import members
        from doorward.devices import parting

        members.at_parting(parting.part)
