"""The support room."""

from django.apps import AppConfig


class SupportConfig(AppConfig):
    """Tickets and help."""

    name = "doorward.support"
    label = "support"

    def ready(self) -> None:
        """Have what people wrote take part in exports and deletions."""
        from doorward.support import privacy

        privacy.register()
