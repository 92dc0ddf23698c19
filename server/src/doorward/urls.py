"""Which room answers which address at the people's door."""

from __future__ import annotations

from django.urls import include, path

from doorward.api import approvals
from doorward.portal import health
from doorward.portal.sign_in import sign_in

urlpatterns = [
    # Ahead of the list it is in (doorward.portal.urls): the way there leads past 200 others.
    path("login/", sign_in, name="account_login"),
    path("health/live", health.live),
    path("health/ready", health.ready),
    *approvals.ADDRESSES,
    path("_allauth/", include("allauth.headless.urls")),
    path("api/v1/", include("doorward.api.urls")),
    path("", include("doorward.portal.urls")),
]

handler400 = "doorward.portal.errors.bad_request"
handler403 = "doorward.portal.errors.forbidden"
handler404 = "doorward.portal.errors.not_found"
handler500 = "doorward.portal.errors.server_error"
