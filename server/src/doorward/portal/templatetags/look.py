"""Our own words for templates: icons, doors, states, ages, fields, text from outside."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

from django import template
from django.forms import BoundField, CheckboxInput, PasswordInput
from django.http import HttpRequest
from django.templatetags.static import static
from django.utils import timezone
from django.utils.dates import MONTHS_3
from django.utils.functional import Promise
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from doorward.portal import errors, telling, texts

register = template.Library()

STATUS_ICONS: Final = {
    "safe": "check",
    "attention": "attention",
    "danger": "danger",
    "unknown": "unknown",
    "waiting": "waiting",
}


@cache
def _sprite() -> str:
    # Its hashed name is the same for the life of the process, and asked for a hundred times a page.
    return static("portal/icons.svg")


@register.simple_tag
@cache
def icon(name: str) -> SafeString:
    """Draw one icon of the sprite; a screen reader skips it, so a word must stand beside it."""
    return format_html(
        '<svg class="icon" aria-hidden="true" focusable="false"><use href="{}#{}"></use></svg>',
        _sprite(),
        name,
    )


@register.simple_tag
def mark() -> SafeString:
    """Draw the mark: an arch lit from within."""
    return format_html(
        '<svg class="mark" aria-hidden="true" focusable="false"><use href="{}#mark"></use></svg>',
        _sprite(),
    )


@register.simple_tag
def door(state: str) -> SafeString:
    """Draw the door of the house: ``well``, ``ajar``, ``unknown`` or ``open``."""
    return format_html(
        '<svg class="door" viewBox="0 0 160 168" aria-hidden="true" focusable="false">'
        '<use href="{}#door-{}"></use></svg>',
        _sprite(),
        state,
    )


def exact_words(when: datetime) -> str:
    """Return the moment in the person's zone, with the zone's name: ``22 Nov 2026, 15:44 CET``."""
    local = timezone.localtime(when)
    # Not date_format: it takes 45 us, and a page writes dozens of moments.
    return _("%(day)d %(month)s %(year)d, %(time)s") % {
        "day": local.day,
        "month": MONTHS_3[local.month].capitalize(),
        "year": local.year,
        "time": f"{local:%H:%M} {local.tzname()}",
    }


def age_words(age: timedelta) -> str:
    """Return an age as people say it: ``just now``, ``4 min ago``, ``3 hr ago``, ``2 days ago``."""
    seconds = int(age.total_seconds())
    if seconds < 60:
        return _("just now")
    if seconds < 3600:
        return _("%(count)d min ago") % {"count": seconds // 60}
    if seconds < 86400:
        hours = seconds // 3600
        return ngettext("%(count)d hr ago", "%(count)d hr ago", hours) % {"count": hours}
    if seconds < 86400 * 30:
        days = seconds // 86400
        return ngettext("%(count)d day ago", "%(count)d days ago", days) % {"count": days}
    months = seconds // (86400 * 30)
    if months < 12:
        return ngettext("%(count)d month ago", "%(count)d months ago", months) % {"count": months}
    years = max(1, seconds // (86400 * 365))
    return ngettext("%(count)d year ago", "%(count)d years ago", years) % {"count": years}


@register.simple_tag
def ago(when: datetime | None) -> SafeString | str:
    """Write a moment by its age; the exact moment on hover and to screen readers."""
    if when is None:
        return _("never")
    exact = exact_words(when)
    return format_html(
        '<time datetime="{}" title="{}"><span data-ago>{}</span>'
        '<span class="visually-hidden"> ({})</span></time>',
        when.isoformat(timespec="seconds"),
        exact,
        age_words(timezone.now() - when),
        exact,
    )


@register.simple_tag
def exact(when: datetime | None) -> SafeString | str:
    """Write a moment exactly, in the person's zone."""
    if when is None:
        return _("never")
    return format_html(
        '<time datetime="{}">{}</time>', when.isoformat(timespec="seconds"), exact_words(when)
    )


@register.simple_tag
def status(
    tone: str, word: str | Promise, said: str | Promise = "", when: datetime | None = None
) -> SafeString:
    """Show a state by icon, word and age: ``Protected · checked 4 min ago``."""
    age: SafeString | str = ""
    if when:
        age = format_html('<span class="status-age">{} {}</span>', said, ago(when))
    return format_html(
        '<span class="status status-{}"><span class="status-word">{}{}</span>{}</span>',
        tone,
        icon(STATUS_ICONS.get(tone, "unknown")),
        word,
        age,
    )


@register.simple_tag
def outside(text: object, most: int = 120) -> SafeString:
    """Show text that came from outside: inert, of its own direction, shortened inside."""
    words = texts.visible(str(text))
    short = texts.shortened(words, most)
    if short == words:
        return format_html("<bdi>{}</bdi>", words)
    return format_html('<bdi title="{}">{}</bdi>', texts.shortened(words, 1000), short)


@register.inclusion_tag("portal/parts/whole.html")
def whole(text: object) -> dict[str, object]:
    """Show text that came from outside in full: short text plainly, long text behind a click."""
    words = texts.visible(str(text))
    return {"words": words, "long": len(words) > 300, "count": len(words)}


@register.inclusion_tag("portal/parts/field.html")
def field(bound: BoundField, help_below: str = "") -> dict[str, Any]:
    """Show a field: label above, help below, what is wrong beside it."""
    widget = bound.field.widget
    # A label that goes away while one types is no label.
    widget.attrs.pop("placeholder", None)
    if bound.name == "code":
        if bound.errors:
            # Nobody mends a code: the next one typed would stand behind this one.
            bound.form.data = {**dict(bound.form.data.items()), bound.html_name: ""}
        # Whoever comes here has the code in mind, and types nothing else first.
        more = {"class": "code-input", "autocomplete": "one-time-code", "autofocus": True}
        widget.attrs.update(more)
    if bound.name == next(iter(bound.form.errors), None):
        # Where to go on; and a screen reader says what is wrong with it (aria-describedby).
        widget.attrs["autofocus"] = True
    return {
        "field": bound,
        "password": isinstance(widget, PasswordInput),
        "meter": widget.attrs.get("autocomplete") == "new-password" and bound.name != "password2",
        "check": isinstance(widget, CheckboxInput),
        "optional": not bound.field.required and not isinstance(widget, CheckboxInput),
        "help_below": help_below,
    }


@register.simple_tag(takes_context=True)
def here(context: template.Context, *prefixes: str) -> SafeString:
    """Write aria-current when this page's address begins so (``/`` means only itself)."""
    request = context.get("request")
    path = request.path if request is not None else ""
    for prefix in prefixes:
        if path == prefix or (prefix != "/" and path.startswith(prefix)):
            return format_html(' aria-current="{}"', "page" if path == prefix else "true")
    return SafeString("")


@register.filter
def device_icon(kind: str) -> str:
    """Return which icon stands for this kind of device."""
    return telling.ICONS.get(kind, "devices")


@register.simple_tag
def number(value: int) -> str:
    """Write a number as people do: 48,211."""
    return telling.number(value)


@register.simple_tag
def duration(milliseconds: int) -> str:
    """Write a duration as people say it."""
    return telling.duration(milliseconds)


@register.simple_tag
def action(disposition: int) -> SafeString:
    """Show what was done about a threat."""
    tone, word = telling.action(disposition)
    return status(tone, word)


@register.filter
def visible(text: object, most: int = 60) -> str:
    """Return text that came from outside for a place where no markup can stand, as a title."""
    return texts.shortened(texts.visible(str(text)), most)


register.filter("system", telling.system)
register.filter("reason", telling.reason)
register.filter("definitions", telling.definitions)
register.filter("browser", telling.browser)
register.filter("scan_headline", telling.scan_headline)
register.filter("scan_figures", telling.scan_figures)
register.filter("file_name", telling.file_word)


@register.filter
def unsent(request: HttpRequest) -> bool:
    """Tell whether a form of ours led to the sign-in page and was not done."""
    return errors.was_unsent(request)
