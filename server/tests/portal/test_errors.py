"""When something is wrong, the page says what to do, and nothing of our insides."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import path
from structlog.testing import capture_logs

from doorward import urls as real


def broken(request: Any) -> Any:
    raise RuntimeError("the secret of the house")


urlpatterns = [*real.urlpatterns, path("broken/", broken)]
handler400, handler403 = real.handler400, real.handler403
handler404, handler500 = real.handler404, real.handler500


@pytest.mark.urls(__name__)
def test_row93_a_mistake_of_ours_shows_a_number_that_the_log_knows(db: None) -> None:
    client = Client(HTTP_HOST="localhost", raise_request_exception=False)
    with capture_logs() as logs:
        answer = client.get("/broken/")
    assert answer.status_code == 500
    page = answer.content.decode()
    assert "Something broke on our side" in page
    assert "secret" not in page
    assert "Traceback" not in page
    told = next(entry for entry in logs if entry["event"] == "portal.error.shown")
    assert told["number"] in page


def test_a_missing_page_leads_home(client: Client, db: None) -> None:
    answer = client.get("/nowhere/", HTTP_HOST="localhost")
    assert answer.status_code == 404
    assert "Nothing is here" in answer.content.decode()
    assert 'href="/"' in answer.content.decode()


def test_a_person_without_an_account_is_told_so(db: None) -> None:
    from server.tests.conftest import person, signed_in

    answer = signed_in(person("dora@example.org", "Dora")).get("/")
    assert answer.status_code == 403
    assert "You belong to no account" in answer.content.decode()


def test_a_button_s_address_opened_by_hand_shows_a_page_and_not_a_blank_window(
    db: None,
) -> None:
    browser = Client(HTTP_HOST="localhost", headers={"accept": "text/html,*/*;q=0.8"})
    answer = browser.get("/login/link/")
    assert answer.status_code == 405
    assert answer["Allow"] == "POST"
    assert "Nothing to open here" in answer.content.decode()
    assert "default-src 'self'" in answer["Content-Security-Policy"]
    program = Client(HTTP_HOST="localhost", headers={"accept": "application/json"})
    assert program.get("/login/link/").content == b""


BY_OUR_PAGE = {"Sec-Fetch-Site": "same-origin"}


def test_what_was_sent_after_the_session_ended_elsewhere_is_said_not_to_be_done(db: None) -> None:
    signed_out = Client(HTTP_HOST="localhost")
    opened = signed_out.get("/account/members/")
    assert opened["Location"] == "/login/?next=/account/members/"
    page = signed_out.get(opened["Location"], headers=BY_OUR_PAGE)
    assert "was not done" not in page.content.decode()

    # The form's own address takes nothing but forms: one goes back to the page it was on.
    sent = signed_out.post(
        "/account/members/sharing/",
        {"shares": "paths"},
        headers={"Referer": "http://localhost/account/members/?by=name"},
    )

    assert sent["Location"] == "/login/?next=/account/members/&unsent=yes"
    page = signed_out.get(sent["Location"], headers=BY_OUR_PAGE)
    assert "What you just sent was not done" in page.content.decode()
    assert page.context["redirect_field_value"] == "/account/members/"


@pytest.mark.parametrize("asks", ["/devices/", "/devices/?page=2", "/reports/threats/"])
def test_a_part_of_a_page_whose_session_ended_takes_the_whole_page_to_sign_in(
    db: None, asks: str
) -> None:
    by_part = {"HX-Request": "true", "Referer": "http://localhost/reports/"}
    answer = Client(HTTP_HOST="localhost").get(asks, headers=by_part)
    assert answer.status_code == 204
    assert answer["HX-Redirect"] == "/login/?next=/reports/"
    assert "Location" not in answer.headers
    assert "Cookie" in answer["Vary"]
    sent = Client(HTTP_HOST="localhost").post("/account/members/invite/", headers=by_part)
    assert sent["HX-Redirect"] == "/login/?next=/reports/&unsent=yes"


def test_that_nothing_was_done_is_said_until_one_is_in(db: None) -> None:
    browser = Client(HTTP_HOST="localhost")
    here = {"Sec-Fetch-Site": "same-origin"}
    page = browser.get("/login/?next=/devices/&unsent=yes", headers=here)
    assert 'name="unsent" value="yes"' in page.content.decode()
    wrong = {"login": "dora@example.org", "password": "not hers", "unsent": "yes"}
    page = browser.post("/login/", wrong, headers=here)
    assert "What you just sent was not done" in page.content.decode()
    assert 'name="unsent" value="yes"' in page.content.decode()
    del wrong["unsent"]
    page = browser.post("/login/", wrong, headers=here)
    assert "What you just sent was not done" not in page.content.decode()


@pytest.mark.parametrize(
    "referer", ["", "https://evil.example/x", "http://localhost.evil/x", "//x"]
)
def test_nobody_elsewhere_says_where_one_goes_after_signing_in(db: None, referer: str) -> None:
    signed_out = Client(HTTP_HOST="localhost")
    headers = {"Referer": referer}
    sent = signed_out.post("/account/members/sharing/", {"shares": "paths"}, headers=headers)
    assert sent["Location"] == "/login/?next=/account/members/sharing/&unsent=yes"


@pytest.mark.parametrize("site", [{}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "none"}])
def test_a_link_from_elsewhere_does_not_tell_anybody_they_were_signed_out(
    db: None, site: dict[str, str]
) -> None:
    page = Client(HTTP_HOST="localhost").get("/login/?unsent=yes", headers=site)
    assert "You were signed out meanwhile" not in page.content.decode()


def test_signing_out_is_done_and_says_nothing_else(db: None) -> None:
    from server.tests.conftest import person, signed_in

    browser = signed_in(person("dora@example.org", "Dora"))
    answer = browser.post("/logout/?next=/login/%3Fnext=/devices/")
    assert "unsent" not in answer["Location"]
