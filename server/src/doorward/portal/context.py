"""What every template may name."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest

from doorward.portal import account


def site(request: HttpRequest) -> dict[str, object]:
    """Return the product's name and look as the operator set them, and what this browser chose."""
    return {**brand(), "theme": account.theme(request)}


def brand() -> dict[str, object]:
    """Return what the operator set; it needs no request and no database."""
    return {
        "product_name": settings.PRODUCT_NAME,
        "support_email": settings.SUPPORT_EMAIL,
        "brand_color": settings.BRAND_COLOR,
    }
