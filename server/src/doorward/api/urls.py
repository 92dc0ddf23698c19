"""The addresses of /api/v1/: what they answer, and that every error is a problem (RFC 9457)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any, Final, Literal
from uuid import UUID

import structlog
from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path, re_path
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from ninja import NinjaAPI, Status
from ninja.errors import AuthenticationError, HttpError, ValidationError
from ninja.openapi.schema import OpenAPISchema

from doorward.accounts.adapter import origin_of
from doorward.accounts.permissions import Act
from doorward.api import callers, finding, problems, shapes
from doorward.api import commands as ordering
from doorward.api import members as membership
from doorward.api import settings as protection_settings
from doorward.api.problems import Refused
from doorward.billing import entitlement
from doorward.devices import enrollment, queries, removal, seats
from doorward.reports import queries as reports
from doorward.reports.models import Detection, Scan

log = structlog.get_logger(__name__)

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
        "Errors are RFC 9457 problems. "
        "Lists are read by cursor: pass `next` of one answer as `cursor` of the next call."
    ),
    auth=[callers.SessionAuth(), callers.TokenAuth()],
    docs_url=None,
    openapi_url="/openapi.json",
    urls_namespace="api",
)

Whose = UUID | Literal["none"] | None


# -- you -----------------------------------------------------------------------------------------


@api.get("/me", response={200: shapes.Me, **shapes.ERRORS}, summary="Who you are here")
def me(request: HttpRequest) -> shapes.Me:
    """Return the person, their account and role, and what this call may do."""
    caller = callers.of(request, Act.LOOK)
    return shapes.Me.of(caller, entitlement.of(caller.account), seats.of(caller.account))


# -- devices -------------------------------------------------------------------------------------


@api.post(
    "/devices/codes",
    response={201: shapes.CodeOut, **shapes.WITH_ID},
    summary="Make a code that adds a device",
)
def make_code(request: HttpRequest, member: Whose = None) -> Status[shapes.CodeOut]:
    """Make a code for one device. It works once, within ten minutes.

    The device will be yours; with `member`, another member's (their id) or nobody's own (`none`).
    Whoever it belongs to decides what the others see of it.
    """
    caller, origin = callers.of(request, Act.DEVICES_CHANGE), origin_of(request)
    code, text = enrollment.new_code(
        caller.account,
        caller.user,
        member=finding.member(caller, member).user if isinstance(member, UUID) else None,
        for_all=member == "none",
        ip=origin.ip,
        agent=origin.agent,
    )
    return Status(
        201,
        shapes.CodeOut(
            id=code.pk, code=text, server=settings.DEVICE_URL, expires_at=code.expires_at
        ),
    )


@api.get(
    "/devices/codes/{uuid:code_id}",
    response={200: shapes.CodeStateOut, **shapes.WITH_ID},
    summary="What became of a code",
)
def watch_code(request: HttpRequest, code_id: UUID) -> shapes.CodeStateOut:
    """Tell whether a device has joined by this code."""
    found = queries.code_state(
        callers.of(request, Act.DEVICES_LOOK).account, code_id, timezone.now()
    )
    if found is None:
        raise Refused("not-found")
    return shapes.CodeStateOut.of(code_id, found)


@api.get(
    "/devices",
    response={200: shapes.Page[shapes.DeviceOut], **shapes.ERRORS},
    summary="Your account's devices",
)
def list_devices(
    request: HttpRequest,
    cursor: UUID | None = None,
    limit: shapes.Limit = 50,
) -> shapes.Page[shapes.DeviceOut]:
    """Return devices in the order in which they joined."""
    caller = callers.of(request, Act.DEVICES_LOOK)
    found = queries.page(caller.account, after=cursor, size=limit)
    now = timezone.now()
    return shapes.Page(
        items=[shapes.DeviceOut.of(device, caller.sight, now) for device in found[:limit]],
        next=str(found[limit - 1].pk) if len(found) > limit else None,
    )


@api.get(
    "/devices/{uuid:device_id}",
    response={200: shapes.DeviceOut, **shapes.WITH_ID},
    summary="One device",
)
def show_device(request: HttpRequest, device_id: UUID) -> shapes.DeviceOut:
    """Return one device of your account."""
    caller = callers.of(request, Act.DEVICES_LOOK)
    return shapes.DeviceOut.of(finding.device(caller, device_id), caller.sight, timezone.now())


@api.patch(
    "/devices/{uuid:device_id}",
    response={200: shapes.DeviceOut, **shapes.WITH_ID, **shapes.WITH_BODY},
    summary="Rename a device",
)
def change_device(
    request: HttpRequest, device_id: UUID, change: shapes.DeviceChange
) -> shapes.DeviceOut:
    """Call the device by another name."""
    caller, origin = callers.of(request, Act.DEVICES_CHANGE), origin_of(request)
    device = finding.device(caller, device_id)
    try:
        removal.rename(device, change.name, actor=caller.user, ip=origin.ip, agent=origin.agent)
    except removal.NameRefused:
        raise Refused(
            "invalid",
            "A name has 1 to 200 visible characters.",
            fields=[{"at": ["body", "change", "name"], "problem": "not a name"}],
        ) from None
    return shapes.DeviceOut.of(device, caller.sight, timezone.now())


@api.delete(
    "/devices/{uuid:device_id}",
    response={204: None, **shapes.WITH_ID},
    summary="Remove a device",
)
def remove_device(request: HttpRequest, device_id: UUID) -> Status[None]:
    """Take the device out of the account; its seat is free at once, also when it is offline."""
    caller, origin = callers.of(request, Act.DEVICES_CHANGE), origin_of(request)
    device = finding.device(caller, device_id)
    removal.remove(device, actor=caller.user, ip=origin.ip, agent=origin.agent)
    return Status(204, None)


# -- reports -------------------------------------------------------------------------------------


@api.get(
    "/scans",
    response={200: shapes.Page[shapes.ScanOut], **shapes.ERRORS},
    summary="Scans, the latest first",
)
def list_scans(
    request: HttpRequest,
    device: UUID | None = None,
    with_threats: bool | None = None,
    since: shapes.Moment | None = None,
    until: shapes.Moment | None = None,
    cursor: shapes.Cursor | None = None,
    limit: shapes.Limit = 50,
) -> shapes.Page[shapes.ScanOut]:
    """Return scans of your account's devices."""
    wanted = reports.ScanFilter(
        device=device, with_detections=with_threats, since=since, until=until
    )
    found = reports.scans(
        callers.of(request, Act.REPORTS_LOOK).sight, wanted, cursor=cursor or "", limit=limit
    )
    return shapes.Page(
        items=[shapes.ScanOut.of(scan) for scan in found.rows], next=found.older or None
    )


@api.get(
    "/scans/{uuid:scan_id}", response={200: shapes.ScanOut, **shapes.WITH_ID}, summary="One scan"
)
def show_scan(request: HttpRequest, scan_id: UUID) -> shapes.ScanOut:
    """Return one scan."""
    try:
        return shapes.ScanOut.of(reports.scan(callers.of(request, Act.REPORTS_LOOK).sight, scan_id))
    except Scan.DoesNotExist:
        raise Refused("not-found") from None


@api.get(
    "/threats",
    response={200: shapes.Page[shapes.ThreatOut], **shapes.ERRORS},
    summary="Threats, the latest first",
)
def list_threats(
    request: HttpRequest,
    device: UUID | None = None,
    is_open: bool | None = None,
    text: shapes.Text | None = None,
    since: shapes.Moment | None = None,
    until: shapes.Moment | None = None,
    cursor: shapes.Cursor | None = None,
    limit: shapes.Limit = 50,
) -> shapes.Page[shapes.ThreatOut]:
    """Return threats found on your account's devices. `text` is sought in path, title and rule."""
    wanted = reports.ThreatFilter(
        device=device, is_open=is_open, text=text or "", since=since, until=until
    )
    found = reports.threats(
        callers.of(request, Act.REPORTS_LOOK).sight, wanted, cursor=cursor or "", limit=limit
    )
    return shapes.Page(
        items=[shapes.ThreatOut.of(threat) for threat in found.rows], next=found.older or None
    )


@api.get(
    "/threats/{uuid:threat_id}",
    response={200: shapes.ThreatOut, **shapes.WITH_ID},
    summary="One threat",
)
def show_threat(request: HttpRequest, threat_id: UUID) -> shapes.ThreatOut:
    """Return one threat."""
    try:
        return shapes.ThreatOut.of(
            reports.threat(callers.of(request, Act.REPORTS_LOOK).sight, threat_id)
        )
    except Detection.DoesNotExist:
        raise Refused("not-found") from None


api.add_router("", membership.router)
api.add_router("", ordering.router)
api.add_router("", protection_settings.router)


# -- errors --------------------------------------------------------------------------------------


@api.exception_handler(Refused)
def _refused(_request: HttpRequest, refused: Refused) -> HttpResponse:
    return problems.answer(refused.code, refused.detail, **refused.more)


@api.exception_handler(AuthenticationError)
def _unauthorized(_request: HttpRequest, _error: AuthenticationError) -> HttpResponse:
    return problems.answer("unauthorized")


@api.exception_handler(ValidationError)
def _invalid(_request: HttpRequest, error: ValidationError) -> HttpResponse:
    # Without what was sent: it may be long, and may be a secret in the wrong place.
    fields = [
        {"at": [_place(part) for part in wrong["loc"]], "problem": str(wrong["msg"])[:200]}
        for wrong in error.errors[:50]
    ]
    return problems.answer("invalid", fields=fields)


@api.exception_handler(reports.InvalidCursor)
def _bad_cursor(_request: HttpRequest, _error: reports.InvalidCursor) -> HttpResponse:
    at = {"at": ["query", "cursor"], "problem": "not a cursor of this list"}
    return problems.answer("invalid", fields=[at])


@api.exception_handler(HttpError)
def _http_error(_request: HttpRequest, error: HttpError) -> HttpResponse:
    known = {status: code for code, (status, _title) in problems.TITLES.items()}
    return problems.answer(known.get(error.status_code, "bad-request"), str(error)[:200])


@api.exception_handler(Http404)
def _missing(_request: HttpRequest, _error: Http404) -> HttpResponse:
    return problems.answer("not-found")


def _place(part: object) -> str | int:
    return part if isinstance(part, int) else str(part)[:100]


def guarded(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """Have the view answer a problem where Django or ninja would answer a page or plain text."""

    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        begun: datetime = timezone.now()
        try:
            response = view(request, *args, **kwargs)
        except RequestDataTooBig:
            response = problems.answer("too-large")
        except (OperationalError, InterfaceError):
            log.exception("api.unavailable", path=request.path)
            response = problems.answer("unavailable")
        except Exception:
            log.exception("api.failed", path=request.path, begun=begun.isoformat())
            response = problems.answer("internal-error")
        if response.status_code == 405:
            allow = response.headers.get("Allow", "")
            response = problems.answer("method-not-allowed")
            response.headers["Allow"] = allow
        response.headers["Cache-Control"] = "no-store"
        return response

    return answer


@csrf_exempt
@guarded
def _nothing_here(_request: HttpRequest) -> HttpResponse:
    return problems.answer("not-found")


def _patterns() -> list[URLPattern]:
    found = [
        pattern
        for pattern in api.urls[0]
        if isinstance(pattern, URLPattern) and pattern.name != "api-root"
    ]
    for pattern in found:
        pattern.callback = guarded(pattern.callback)
    # Ninja looks its own root up by name.
    return [*found, path("", _nothing_here, name="api-root"), re_path("", _nothing_here)]


app_name = "api"
urlpatterns = _patterns()
