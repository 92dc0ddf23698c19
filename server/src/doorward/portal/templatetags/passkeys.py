"""What a page hands to the script that asks the browser for a passkey."""

from __future__ import annotations

import json

from django import template
from django.core.serializers.json import DjangoJSONEncoder

register = template.Library()


@register.filter
def as_json(value: object) -> str:
    """Return the value as JSON, for an attribute: the template escapes it there."""
    return json.dumps(value, cls=DjangoJSONEncoder)
