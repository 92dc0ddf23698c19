"""The addresses of /api/v1/, and the document that describes them."""

from __future__ import annotations

from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, re_path
from django.views.decorators.csrf import csrf_exempt
from ninja import NinjaAPI
from ninja.openapi.schema import OpenAPISchema

from doorward.api import (
    callers,
    commands,
    devices,
    failing,
    members,
    problems,
    reports,
)
from doorward.api import settings as protection_settings

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"


class Api(NinjaAPI):
    """Ninja's API whose documentation tells the truth about the type of its errors."""

    def get_openapi_schema(self, **options: Any) -> OpenAPISchema:
        """Return the OpenAPI document; answers of 400 and more are application/problem+json."""
        schema = super().get_openapi_schema(**options)
        for operations in schema.get("paths", {}).values():
            for operation in operations.values():
                for status, response in operation.get("responses", {}).items():
                    content = response.get("content", {})
                    if int(status) >= 400 and JSON in content:
                        content[PROBLEM] = content.pop(JSON)
        return schema


api = Api(
    title=f"{settings.PRODUCT_NAME} API",
    version="1",
    description=(
        "Sign in through /_allauth/ and send the session token as X-Session-Token, or send a "
        "personal access token as `Authorization: Bearer dwp_…`. Who belongs to several accounts "
        "names one by its id in `X-Account`; without it, the one they belong to longest is meant. "
        "A token has scopes: devices:read, devices:write (add, rename, remove), commands:write "
        "(have devices scan and the like), settings:write (what they are told, never to protect "
        "less), reports:read, members:read. "
        "Errors are RFC 9457 problems. "
        "Lists are read by cursor: pass `next` of one answer as `cursor` of the next call."
    ),
    auth=[callers.SessionAuth(), callers.TokenAuth()],
    docs_url=None,
    openapi_url="/openapi.json",
    urls_namespace="api",
)

failing.answer_problems(api)
for each in (devices, reports, members, commands, protection_settings):
    api.add_router("", each.router)


@csrf_exempt
@failing.guarded
def _nothing_here(_request: HttpRequest) -> HttpResponse:
    return problems.answer("not-found")


def _patterns() -> list[URLPattern]:
    found = [
        pattern
        for pattern in api.urls[0]
        if isinstance(pattern, URLPattern) and pattern.name != "api-root"
    ]
    for pattern in found:
        pattern.callback = failing.guarded(pattern.callback)
    # Ninja looks its own root up by name.
    return [*found, path("", _nothing_here, name="api-root"), re_path("", _nothing_here)]


app_name = "api"
urlpatterns = _patterns()
