"""The portal room."""

from django.apps import AppConfig


class PortalConfig(AppConfig):
    """Pages for people."""

    name = "doorward.portal"
    label = "portal"

    def ready(self) -> None:
        """Have the answer to whoever signs out clear what their browser kept."""
        from django.contrib.auth.signals import user_logged_out

        from doorward.portal import responses

        user_logged_out.connect(responses.signed_out, dispatch_uid="doorward.signed_out")
