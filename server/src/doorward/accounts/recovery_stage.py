"""Where a recovery whose wait is over opens: between the right password and a session, once."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from allauth.account.internal.stagekit import stash_login
from allauth.account.stages import LoginStage, LoginStageController
from allauth.core.internal.httpkit import headed_redirect_response, is_headless_request
from django.utils import timezone

from doorward.accounts import recovery
from doorward.accounts.models import Recovery, User
from doorward.accounts.origin import origin_of
from doorward.accounts.two_factor_events import changed_elsewhere

if TYPE_CHECKING:
    from django.http import HttpRequest  # noqa: TID251 - signatures are allauth's

# In the session of a browser in which the mailed link was opened: which recovery it is of.
LINK_SEEN: Final = "recovery_link"
STAMP: Final = "stamp"
SECOND_STEP: Final = ("mfa_authenticate", "login_by_code")


class RecoveryStage(LoginStage):  # type: ignore[misc]  # allauth ships no types
    """Offers to set a new second step, where the wait is over and its link was opened here."""

    key = "recovery"
    urlname = "recovery_enter"

    def handle(self) -> tuple[Any, bool]:
        """Go on, or to the page that asks whether to remove the lost second step."""
        if is_headless_request(self.request) or self.found() is None:
            return None, True
        return headed_redirect_response(self.urlname), True

    def found(self) -> Recovery | None:
        """Return the recovery that opens here now."""
        user = self.login.user
        seen = self.request.session.get(LINK_SEEN)
        if user is None or not seen:
            return None
        now = timezone.now()
        running = (each for each in recovery.running_for(user) if str(each.pk) == seen)
        return next((each for each in running if recovery.is_open(each, now)), None)

    def enter(self) -> Any:
        """Remove the lost second step and let the person in. Raises recovery.NotOpen."""
        user = self.login.user
        seen = self.request.session.pop(LINK_SEEN, None)
        if user is None or not seen or not is_unchanged(self):
            raise recovery.NotOpen
        origin = origin_of(self.request)
        recovery.enter(user, UUID(seen), ip=origin.ip, agent=origin.agent)
        changed_elsewhere(self.request, user)
        # What has just changed was changed by this sign-in: it may go on.
        self.controller.get_stage(STAMP).state["as_of"] = user.get_session_auth_hash()
        # If the second step was asked before the link was opened: it is there no more.
        for key in SECOND_STEP:
            self.controller.get_stage(key).state.clear()
        self.login.redirect_url = "/account/security/"
        return self.exit()

    def leave(self) -> Any:
        """Go on to the second step instead; the recovery stays as it is."""
        self.request.session.pop(LINK_SEEN, None)
        return self.exit()


def pending(request: HttpRequest) -> LoginStage | None:
    """Return the stage of a sign-in whose password was right and whose second step is asked now."""
    for key in SECOND_STEP:
        stage = LoginStageController.enter(request, key)
        if stage is not None and stage.login.user is not None:
            return stage
    return None


def is_unchanged(stage: LoginStage) -> bool:
    """Tell whether password and ways are still those with which this sign-in began."""
    stamp = stage.controller.get_stage(STAMP)
    today = User.objects.filter(pk=stage.login.user.pk, is_active=True).first()
    if stamp is None or today is None:
        return False
    return hmac.compare_digest(today.get_session_auth_hash(), stamp.state.get("as_of", ""))


def go_to_recovery(request: HttpRequest, stage: LoginStage) -> Any:
    """Go back from the second step to the recovery's own page, now that its link was opened."""
    stage.controller.state.setdefault(RecoveryStage.key, {})["handled"] = False
    stage.controller.set_current(RecoveryStage.key)
    stash_login(request, stage.login)
    return headed_redirect_response(RecoveryStage.urlname)
