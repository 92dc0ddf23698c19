"""What every template may name."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest

from doorward.portal import account, zones


def site(request: HttpRequest) -> dict[str, object]:
    """Return the product's name and look as the operator set them, and what this browser chose."""
    return {
        **brand(),
        "theme": account.theme(request),
        "browsers_zone": zones.browsers(request),
        "has_secret": has_secret(request),
    }


def has_secret(request: HttpRequest) -> bool:
    """Tell whether a mailed secret stands in this page's address.

    Such a page is sent with "no-referrer", by which a browser also hides where its forms come from
    (Origin: null), and they would be refused. base.html lets the site's name through, not the path.
    """
    match = request.resolver_match
    return match is not None and not {"secret", "key", "proof"}.isdisjoint(match.kwargs)


def brand() -> dict[str, object]:
    """Return what the operator set; it needs no request and no database."""
    return {
        "product_name": settings.PRODUCT_NAME,
        "support_email": settings.SUPPORT_EMAIL,
        "brand_color": settings.BRAND_COLOR,
    }
