"""The protection room."""

from django.apps import AppConfig


class ProtectionConfig(AppConfig):
    """What devices must do."""

    name = "doorward.protection"
    label = "protection"

    def ready(self) -> None:
        """Have settings take part in exports, and devices that join be told their account's."""
        from doorward.devices import enrollment, replacing
        from doorward.protection import policy, privacy

        privacy.register()
        enrollment.at_joining(policy.join)
        replacing.at_replacing(policy.succeed)
