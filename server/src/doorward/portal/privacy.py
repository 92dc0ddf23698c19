"""The privacy page: a copy of everything, deleting the account, and the receipt afterwards."""

from __future__ import annotations

from typing import Any, Final, cast
from uuid import UUID

from allauth.account.decorators import reauthentication_required
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.decorators import login_required
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from doorward.accounts import asking_again, exports, leaving, members, privacy, sessions
from doorward.accounts.adapter import origin_of
from doorward.accounts.models import User
from doorward.accounts.privacy_rows import Export
from doorward.portal import live
from doorward.portal.responses import as_download

HERE: Final = "/account/privacy/"


@require_safe
@login_required
def overview(request: HttpRequest) -> HttpResponse:
    """Show how far a copy is and whether a deletion is under way; by two queries."""
    user = cast(User, request.user)
    export = exports.newest_of(user)
    if export is not None and not exports.is_there(export):
        export = None
    deletion = leaving.pending(user)
    return live.answer(
        request,
        "portal/privacy/page.html",
        "portal/privacy/live.html",
        seen=(_seen(export), deletion and deletion.pk),
        context=lambda: {
            "export": export,
            "under_way": export is not None and export.state in exports.UNDER_WAY,
            "percent": _percent(export),
            "deletion": deletion,
            "grace_days": leaving.GRACE.days,
        },
    )


def _seen(export: Export | None) -> tuple[object, ...]:
    if export is None:
        return ()
    return (export.pk, export.state, export.tables_done, export.rows, export.fetched_at is None)


def _percent(export: Export | None) -> int:
    return 100 * export.tables_done // export.tables if export and export.tables else 0


@require_POST
@login_required
@asking_again.required(HERE)
@sessions.while_in
def ask_for_copy(request: HttpRequest) -> HttpResponse:
    """Have a copy of everything packed."""
    exports.ask(cast(User, request.user), origin_of(request))
    messages.success(request, _("It is being packed. We mail you when it is ready."))
    return redirect(HERE)


@require_safe
@login_required
@asking_again.required(HERE)
def download(request: HttpRequest, export_id: UUID) -> HttpResponse | FileResponse:
    """Send this person's copy; anybody else's does not exist."""
    user = cast(User, request.user)
    file = exports.fetch(user, export_id, origin_of(request))
    if file is None:
        raise Http404
    name = f"account-copy-{timezone.localdate():%Y-%m-%d}.zip"
    return as_download(FileResponse(file.open("rb"), content_type="application/zip"), name)


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
@reauthentication_required  # type: ignore[untyped-decorator]  # allauth ships no types
def delete(request: HttpRequest) -> HttpResponse:
    """Say what will be deleted and when; on POST begin the days of grace."""
    user = cast(User, request.user)
    if leaving.pending(user) is not None:
        return redirect(HERE)
    refusal = ""
    if request.method == "POST":
        if request.POST.get("understood") != "yes":
            refusal = _("Tick the box first: it says that you know what goes.")
        else:
            try:
                return _ask(request, user)
            except leaving.LastOperator:
                refusal = _(
                    "You are the only operator of this server. Make somebody else an operator "
                    "first (doorward create-operator)."
                )
    whose = privacy.whose(user)
    foretold = leaving.foretell(whose)
    places = members.places_of(user)
    names = members.names_of(places)
    going = [account.pk for account in whose.accounts]
    context: dict[str, Any] = {
        "going": [names[account] for account in going],
        "staying": [names[each.account_id] for each in places if each.account_id not in going],
        "told": {name: count for name, count in foretold.items() if count},
        "due": timezone.now() + leaving.GRACE,
        "grace_days": leaving.GRACE.days,
        "refusal": refusal,
    }
    return render(request, "portal/privacy/delete.html", context, status=422 if refusal else 200)


@sessions.while_in
def _ask(request: HttpRequest, user: User) -> HttpResponse:
    leaving.ask(user, keep_session=request.session.session_key, origin=origin_of(request))
    # Ending the other sessions raised the epoch that each session must match: this one goes on.
    update_session_auth_hash(request, user)
    return redirect(HERE)


@require_POST
@login_required
def keep(request: HttpRequest) -> HttpResponse:
    """Cancel the deletion: one click, no question."""
    try:
        cancelled = leaving.cancel(cast(User, request.user), origin=origin_of(request))
    except leaving.TooLate:
        messages.error(request, _("It is too late: the account is being deleted."))
        return redirect(HERE)
    if cancelled:
        messages.success(request, _("Nothing was deleted. Your account stays."))
    return redirect(HERE)


@require_safe
def receipt(request: HttpRequest, secret: str) -> HttpResponse:
    """Show the receipt of a deletion to whoever has the mailed link; there is no account for it."""
    found = leaving.receipt_of(secret)
    if found is None:
        raise Http404
    context = {
        "receipt": found,
        "words": leaving.words_for(leaving.counts_of(found)),
        "asked_at": leaving.said(found, "asked_at"),
        "deleted_at": leaving.said(found, "deleted_at"),
        "secret": secret,
    }
    answer = render(request, "portal/privacy/receipt.html", context)
    answer.headers["Referrer-Policy"] = "no-referrer"
    return answer


@require_safe
def receipt_file(request: HttpRequest, secret: str) -> HttpResponse:
    """Send the receipt, byte for byte what its checksum is over."""
    found = leaving.receipt_of(secret)
    if found is None:
        raise Http404
    answer = HttpResponse(found.text.encode(), content_type="application/json")
    answer.headers["Referrer-Policy"] = "no-referrer"
    return as_download(answer, f"deletion-receipt-{found.made_at:%Y-%m-%d}.json")
