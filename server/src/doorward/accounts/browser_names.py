"""What a person calls a browser that says of itself a whole line; pages and mails say the same."""

from __future__ import annotations

from typing import Final

from django.utils.translation import gettext as _

MOST_CHARACTERS: Final = 60
_BROWSERS: Final = (
    ("Firefox/", "Firefox"),
    ("Edg/", "Edge"),
    ("OPR/", "Opera"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS: Final = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)


def name_of(agent: str) -> str:
    """Return what a person calls the browser that sent this User-Agent; it is only a claim."""
    name = next((name for sign, name in _BROWSERS if sign in agent), "")
    system = next((name for sign, name in _SYSTEMS if sign in agent), "")
    if name and system:
        return _("%(browser)s on %(system)s") % {"browser": name, "system": system}
    if name or system:
        return name or system
    seen = "".join(part if part.isprintable() else "�" for part in agent.strip())
    if len(seen) > MOST_CHARACTERS:
        seen = f"{seen[: MOST_CHARACTERS - 1]}…"
    return seen or _("An unknown browser")
