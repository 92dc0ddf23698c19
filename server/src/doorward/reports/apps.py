"""The reports room."""

from django.apps import AppConfig


class ReportsConfig(AppConfig):
    """What devices found."""

    name = "doorward.reports"
    label = "reports"

    def ready(self) -> None:
        """Have what devices reported take part in exports and deletions."""
        from doorward.reports import privacy

        privacy.register()
