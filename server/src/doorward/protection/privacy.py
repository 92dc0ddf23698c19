"""What the protection room keeps of an account: what its devices are told, who changed it."""

from __future__ import annotations

from collections.abc import Iterator

from django.db.models import Q

from doorward.accounts import privacy
from doorward.accounts.privacy import Room, Row, Table, Whose
from doorward.accounts.privacy_tables import moment
from doorward.protection import merging
from doorward.protection.models import AccountSettings, DeviceSettings, Group, SettingsVersion


def _settings(whose: Whose) -> Iterator[Row]:
    for defaults in AccountSettings.objects.filter(account__in=whose.accounts).order_by("account"):
        values = merging.canonical(defaults.values)
        yield [str(defaults.account_id), "account", "", values, defaults.locked]
    for group in Group.objects.filter(account__in=whose.accounts).order_by("id"):
        values = merging.canonical(group.values)
        yield [str(group.account_id), "group", group.name, values, group.locked]
    own = DeviceSettings.objects.filter(
        Q(account__in=whose.accounts) | Q(device__member=whose.user.pk)
    )
    for told in own.select_related("device").order_by("device_id").iterator(chunk_size=500):
        if told.values:
            values = merging.canonical(told.values)
            yield [str(told.account_id), "device", told.device.label, values, []]


def _changes(whose: Whose) -> Iterator[Row]:
    found = SettingsVersion.objects.filter(account__in=whose.accounts)
    for version in found.order_by("account", "number").iterator(chunk_size=500):
        yield [
            str(version.account_id),
            version.number,
            moment(version.at),
            str(version.by_id or ""),
            version.why,
            version.undoes,
            merging.canonical({"changes": version.changes}),
        ]


def register() -> None:
    """Have this room take part."""
    settings = Table(
        "protection_settings",
        "What you told your devices to do, where it differs from what they do by themselves.",
        {
            "account": "the account's number",
            "where": "account, group or device",
            "name": "the group's or device's name",
            "settings": "the settings as JSON",
            "locked": "settings that groups or devices can't have otherwise",
        },
        _settings,
    )
    changes = Table(
        "protection_changes",
        "Each change of the protection settings of the accounts you alone own.",
        {
            "account": "the account's number",
            "number": "its number",
            "at": "when it was made",
            "by": "the number of the person who made it",
            "why": "the reason they gave",
            "undoes": "the number of the change it took back; of several, of the first",
            "changes": "what stood there before and after, as JSON",
        },
        _changes,
    )
    covers = {
        "protection.AccountSettings": "goes with its account",
        "protection.Group": "goes with its account",
        "protection.DeviceSettings": "goes with its device",
        "protection.SettingsVersion": "goes with its account; who made it is forgotten with them",
        "protection.DefinitionSource": "what operators imported; nothing of any account",
        "protection.DefinitionSet": "what operators made; nothing of any account",
    }
    privacy.register(Room("protection", tables=(settings, changes), covers=covers))
