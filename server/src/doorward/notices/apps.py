"""The notices room."""

from django.apps import AppConfig


class NoticesConfig(AppConfig):
    """What we tell whom."""

    name = "doorward.notices"
    label = "notices"

    def ready(self) -> None:
        """Refuse to start when mail has no way out, or one that would give a secret away."""
        from django.conf import settings

        from doorward.environment import SettingRefused
        from doorward.notices import carriers

        try:
            carriers.from_url(settings.EMAIL_URL, data=settings.DATA)
        except carriers.BadMailAddress as refusal:
            raise SettingRefused(str(refusal)) from None
