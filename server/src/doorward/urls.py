"""Which room answers which address at the people's door."""

from __future__ import annotations

from importlib.util import find_spec

from django.urls import include, path

from doorward.portal import health

urlpatterns = [
    path("health/live", health.live),
    path("health/ready", health.ready),
    path("_allauth/", include("allauth.headless.urls")),
]
# The rooms land one by one.
for _prefix, _module in (("api/v1/", "doorward.api.urls"), ("", "doorward.portal.urls")):
    if find_spec(_module):
        urlpatterns.append(path(_prefix, include(_module)))

handler400 = "doorward.portal.errors.bad_request"
handler403 = "doorward.portal.errors.forbidden"
handler404 = "doorward.portal.errors.not_found"
handler500 = "doorward.portal.errors.server_error"
