"""What every answer carries (shared list A1, rows 59, 60 and 62 to 69)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from allauth.account.forms import default_token_generator
from allauth.account.utils import user_pk_to_url_str
from django.conf import settings as django_settings
from django.http import HttpRequest, HttpResponse  # noqa: TID251 - a view is stood in for
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone
from server.tests.accounts.second_steps import (
    App,
    add_app,
    second_step,
    signed_in_tab,
    tab,
    type_password,
)
from server.tests.asvs.test_second_step import reset_link
from server.tests.conftest import PASSWORD

from doorward import settings as ours
from doorward.accounts import browsers, exports
from doorward.accounts.models import Account, User
from doorward.accounts.origin import Origin
from doorward.portal import policy_reports, responses

pytestmark = pytest.mark.django_db

OF_HTTPS = (
    "SECURE",
    "SESSION_COOKIE_NAME",
    "CSRF_COOKIE_NAME",
    "LANGUAGE_COOKIE_NAME",
    "BROWSER_COOKIE_NAME",
    "REMEMBERED_COOKIE_NAME",
    "THEME_COOKIE_NAME",
    "ZONE_COOKIE_NAME",
    "SELF_TEST_COOKIE_NAME",
    "SESSION_COOKIE_SECURE",
    "CSRF_COOKIE_SECURE",
    "SECURE_HSTS_SECONDS",
    "SECURE_HSTS_INCLUDE_SUBDOMAINS",
    "SITE_URL",
    "ALLOWED_HOSTS",
    "CSRF_TRUSTED_ORIGINS",
)


@pytest.fixture(scope="session")
def production() -> dict[str, Any]:
    """Return what the settings are at an https address, read by a process of its own."""
    script = (
        "import json; from doorward import settings as s;"
        f"print(json.dumps({{n: getattr(s, n) for n in {OF_HTTPS!r}}}))"
    )
    done = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", script],
        env={**os.environ, "DOORWARD_SITE_URL": "https://safe.example.org"},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def https(production: dict[str, Any], settings: Any) -> None:
    for name, value in production.items():
        setattr(settings, name, value)


def there() -> Client:
    """Return a browser at the https address."""
    return Client(HTTP_HOST="safe.example.org", headers={"X-Forwarded-Proto": "https"})


# Parts of an address that name something, and open nothing: only who may see it is shown it.
PLAIN = re.compile(
    r"_id$|^uid$|_uid$|^pk$|^slug$|^uidb36$|^provider$|^client$"
    # A section of the settings, the how-manieth version of a policy, which of a device's calls.
    r"|^section$|^number$|^kind$"
)


def pages() -> list[str]:
    return ["/login/", "/signup/", "/help/", "/offline/", "/health/live", "/nowhere/", "/"]


def test_row59_v14_2_1_a_mailed_link_is_told_to_nobody(
    alice: User, alices_account: Account
) -> None:
    tab().post("/password/reset/", {"email": alice.email})
    link = reset_link()
    browser = tab()
    first = browser.get(link)
    assert first.status_code == 302
    assert first["Referrer-Policy"] == "no-referrer"
    # The page itself no longer has the token in its address.
    token = link.rstrip("/").rpartition("-")[2]
    assert token not in first["Location"]
    second = browser.get(first["Location"])
    assert second["Referrer-Policy"] == "no-referrer"
    for dead in (
        link.replace(token, "x" * 40),
        "/login/link/wrong/",
        "/email/undo/wrong/",
        "/invitation/wrong/",
        "/deleted/wrong/",
    ):
        answer = tab().get(dead)
        assert answer["Referrer-Policy"] == "no-referrer", dead


def test_row59_v14_2_1_no_other_address_of_ours_holds_a_secret() -> None:
    named: set[str] = set()

    def walk(patterns: Any, before: str) -> None:
        for pattern in patterns:
            route = before + str(pattern.pattern)
            if isinstance(pattern, URLResolver):
                walk(pattern.url_patterns, route)
            elif isinstance(pattern, URLPattern):
                named.update(
                    name
                    for name in re.findall(r"<(?:\w+:)?(\w+)>", route)
                    if not PLAIN.search(name)
                )

    walk(get_resolver().url_patterns, "")
    from doorward.portal.responses import SECRETS

    assert named <= SECRETS, named - SECRETS


def test_row60_v14_3_1_signing_out_clears_what_the_browser_kept(alice: User) -> None:
    browser = signed_in_tab(alice.email)
    assert "Clear-Site-Data" not in browser.get("/account/security/")
    answer = browser.post("/logout/")
    assert answer["Clear-Site-Data"] == '"cache", "storage"'
    # The browser stays known: a lock for strangers does not hit it.
    assert browser.cookies[django_settings.BROWSER_COOKIE_NAME].value
    assert browsers.find(browser.cookies[django_settings.BROWSER_COOKIE_NAME].value, alice.email)


def test_row60_v14_3_1_an_apps_sign_out_says_so_too(alice: User) -> None:
    app = App()
    app.call("POST", "auth/login", email=alice.email, password=PASSWORD)
    assert app.is_signed_in()
    answer = app.call("DELETE", "auth/session")
    assert answer["Clear-Site-Data"] == '"cache", "storage"'


def test_row60_the_installed_app_keeps_public_files_only(alices_browser: Client) -> None:
    script = alices_browser.get("/service-worker.js").content.decode()
    (kept,) = re.findall(r"const KEPT = (\[.*?\]);", script)
    for path in json.loads(kept):
        assert path == "/offline/" or path.startswith("/static/"), path
    # It puts nothing else away: what is fetched later is never stored.
    assert "cache.put" not in script
    assert script.count("addAll") == 1
    offline = alices_browser.get("/offline/").content.decode()
    assert "alice" not in offline.casefold()


class CookieJar(Client):
    """A browser at the https address that writes down every cookie it is told to keep."""

    def __init__(self) -> None:
        super().__init__(HTTP_HOST="safe.example.org", raise_request_exception=False)
        self.told: list[tuple[str, str, Any]] = []

    def request(self, **asked: Any) -> Any:
        answer = super().request(**{**asked, "wsgi.url_scheme": "https"})
        where = f"{asked['REQUEST_METHOD']} {asked['PATH_INFO']}"
        self.told += [(where, *pair) for pair in answer.cookies.items()]
        return answer


@pytest.mark.usefixtures("https")
def test_row63_v3_3_1_every_cookie_of_every_address_is_bound_to_this_host(
    alice: User, alices_account: Account
) -> None:
    browser = CookieJar()
    type_password(browser, alice.email)
    seed, codes = add_app(browser)
    browser.post("/account/theme/", {"theme": "dark"})
    browser.post("/account/theme/", {"theme": ""})
    browser.get("/help/self-test/")
    assert browser.post("/zone/", {"zone": "Asia/Tokyo"}).status_code == 204
    stranger = CookieJar()
    for path in every_address():
        for one in (browser, stranger):
            for method in ("GET", "POST"):
                if path != "/logout/":
                    one.generic(method, path)
    browser.post("/logout/")
    type_password(browser, alice.email)
    second_step(browser, codes[0], remember=True)
    browser.post("/help/self-test/clear/")
    kept = set()
    for where, name, cookie in browser.told + stranger.told:
        assert name.startswith("__Host-"), (where, name)
        assert cookie["secure"] is True, (where, name)
        assert (cookie["path"], cookie["domain"]) == ("/", ""), (where, name)
        if cookie["max-age"] == 0:
            continue  # Taken back: there is nothing in it.
        assert cookie["httponly"] is True, (where, name)
        assert cookie["samesite"] in {"Lax", "Strict"}, (where, name)
        kept.add(name)
    names = {value for name, value in vars(ours).items() if name.endswith("_COOKIE_NAME")}
    assert {f"__Host-{name}" for name in names - {ours.LANGUAGE_COOKIE_NAME}} == kept
    # Which nothing sets by now; it would be named like the others.
    assert f"__Host-{ours.LANGUAGE_COOKIE_NAME}" == django_settings.LANGUAGE_COOKIE_NAME
    assert seed


def test_row63_v3_3_4_no_script_of_ours_keeps_or_reads_a_cookie() -> None:
    scripts = list((Path(responses.__file__).parent / "static").rglob("*.js"))
    assert len(scripts) >= 3
    for script in scripts:
        assert "document.cookie" not in script.read_text(), script
        assert "cookieStore" not in script.read_text(), script


def test_row63_a_browser_tells_its_zone_by_its_token_alone(alice: User) -> None:
    browser = Client(HTTP_HOST="localhost", enforce_csrf_checks=True)
    assert ' data-zone=""' in browser.get("/login/").content.decode()
    asked = browser.get("/zone/")
    assert asked["Cache-Control"] == "no-store"
    assert browser.post("/zone/", {"zone": "Asia/Tokyo"}).status_code == 403
    told = {"X-CSRFToken": asked.json()["token"]}
    foreign = {**told, "Origin": "https://evil.example"}
    assert browser.post("/zone/", {"zone": "Asia/Tokyo"}, headers=foreign).status_code == 403
    assert ' data-zone=""' in browser.get("/login/").content.decode()
    assert browser.post("/zone/", {"zone": "Asia/Tokyo"}, headers=told).status_code == 204
    # The page says what is known, so that it is told once; it asks for no token.
    page = browser.get("/help/states/").content.decode()
    assert ' data-zone="Asia/Tokyo"' in page
    assert "csrfmiddlewaretoken" not in page
    for wrong in ("", "Mars/Base", "x" * 9000, '"><script>'):
        assert browser.post("/zone/", {"zone": wrong}, headers=told).status_code == 422
    assert ' data-zone="Asia/Tokyo"' in browser.get("/login/").content.decode()
    # What the worker keeps for everybody says nothing of anybody's zone.
    assert "data-zone" not in browser.get("/offline/").content.decode()


@pytest.mark.usefixtures("https")
def test_row64_v3_4_1_every_answer_tells_to_stay_with_https() -> None:
    for path in (*pages(), "/api/v1/devices", "/_allauth/app/v1/auth/session", "/static/nothing"):
        answer = there().get(path, secure=True)
        told = answer["Strict-Transport-Security"]
        assert told == "max-age=31536000; includeSubDomains", path


def test_row65_v3_4_2_no_other_site_may_read_an_answer(alices_browser: Client) -> None:
    for path in (*pages(), "/api/v1/devices", "/_allauth/app/v1/auth/session"):
        for origin in ("https://evil.example", "null", "http://localhost.evil.example"):
            answer = alices_browser.get(path, headers={"Origin": origin})
            assert not [name for name in answer.headers if name.startswith("Access-Control")], path
            asked = alices_browser.options(
                path, headers={"Origin": origin, "Access-Control-Request-Method": "POST"}
            )
            assert not [name for name in asked.headers if name.startswith("Access-Control")], path


def test_row66_v3_4_3_the_policy_lets_nothing_foreign_in_and_breaks_are_reported(
    alices_browser: Client, alices_account: Account
) -> None:
    for path in pages():
        answer = alices_browser.get(path)
        policy = dict(
            part.strip().partition(" ")[::2]
            for part in answer["Content-Security-Policy"].split(";")
        )
        assert policy["default-src"] == "'self'", path
        assert policy["object-src"] == policy["base-uri"] == "'none'", path
        assert policy["frame-ancestors"] == "'none'", path
        assert policy["form-action"] == "'self'", path
        assert policy["report-to"] == "policy", path
        assert "unsafe" not in answer["Content-Security-Policy"], path
        assert answer["Reporting-Endpoints"] == 'policy="/policy-reports/"', path


def test_row66_v3_4_7_a_report_is_written_down_without_the_pages_address(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    report = {
        "type": "csp-violation",
        "body": {
            "effectiveDirective": "script-src-elem",
            "documentURL": "http://localhost/password/reset/key/secret-token/",
            "blockedURL": "https://evil.example/x.js?token=1",
        },
    }
    policy_reports._written.clear()
    stranger = Client(HTTP_HOST="localhost", enforce_csrf_checks=True)

    def send(body: bytes) -> int:
        answer = stranger.post("/policy-reports/", body, content_type="application/reports+json")
        return int(answer.status_code)

    assert send(json.dumps([report]).encode()) == 204
    written = capsys.readouterr().out + caplog.text
    assert "script-src-elem" in written
    assert "https://evil.example" in written
    assert "secret-token" not in written
    assert "token=1" not in written
    for body in (b"", b"{", b"[[]]", b"null", b'{"csp-report": 1}', b"[" * 10_000, b"x" * 20_000):
        assert send(body) == 204
    for _report in range(100):
        send(json.dumps(report).encode())
    assert len(policy_reports._written) <= policy_reports.LINES_A_MINUTE
    assert stranger.get("/policy-reports/").status_code == 405


def test_row67_v3_4_4_each_page_keeps_to_itself(alices_browser: Client) -> None:
    for path in (*pages(), "/account/"):
        answer = alices_browser.get(path)
        assert answer["X-Content-Type-Options"] == "nosniff", path
        assert answer["Referrer-Policy"] == "same-origin", path
        assert answer["X-Frame-Options"] == "DENY", path
        assert answer["Cross-Origin-Opener-Policy"] == "same-origin", path
        assert answer["Cross-Origin-Resource-Policy"] == "same-origin", path


def every_address(urlconf: str = "doorward.urls") -> Iterator[str]:
    """Every address at the people's door, with ids of nothing."""
    nobody = "0193d3a4-0000-7000-8000-000000000000"

    def walk(patterns: Any, before: str) -> Iterator[str]:
        for pattern in patterns:
            route = before + str(pattern.pattern).removeprefix("^")
            if isinstance(pattern, URLResolver):
                yield from walk(pattern.url_patterns, route)
            else:
                filled = re.sub(r"<uuid:\w+>", nobody, route)
                filled = re.sub(r"<\w+:\w+>", "1", filled)
                filled = re.sub(r"\(\?P<\w+>[^)]*\)", "1", filled)
                yield "/" + filled.replace("\\", "").removesuffix("$")

    yield from walk(get_resolver(urlconf).url_patterns, "")


def test_row68_v3_5_1_no_page_changes_anything_without_its_token_or_from_elsewhere(
    alice: User, alices_account: Account
) -> None:
    browser = Client(HTTP_HOST="localhost", enforce_csrf_checks=True)
    browser.force_login(alice, "allauth.account.auth_backends.AuthenticationBackend")
    page = browser.get("/account/").content.decode()
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert found is not None
    refused = 0
    for path in every_address("doorward.portal.urls"):
        if path == "/policy-reports/":
            continue
        answer = browser.post(path, {})
        assert answer.status_code in {403, 404, 405}, (path, answer.status_code)
        refused += answer.status_code == 403
        foreign = browser.post(
            path,
            {"csrfmiddlewaretoken": found[1]},
            headers={"Origin": "https://evil.example"},
        )
        assert foreign.status_code in {403, 404, 405}, (path, foreign.status_code)
    assert refused > 30


@pytest.mark.parametrize(
    "path",
    ["/logout/", "/account/privacy/export/", "/account/privacy/keep/", "/account/theme/"],
)
def test_row68_v3_5_3_reading_changes_nothing(alice: User, path: str) -> None:
    browser = signed_in_tab(alice.email)
    for method in ("GET", "HEAD"):
        assert browser.generic(method, path).status_code in {200, 302, 405}, path
    assert browser.get("/account/security/").status_code == 200, "still signed in"


ELSEWHERE = [
    "//evil.example",
    "///evil.example",
    "\\\\evil.example",
    "/\\evil.example",
    "https:evil.example",
    "https://evil.example",
    "http:///evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    " //evil.example",
    "https://localhost@evil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "//localhost:80@evil.example/",
]


@pytest.mark.parametrize("there", ELSEWHERE)
def test_row69_v3_7_2_after_signing_in_one_stays_here(alice: User, there: str) -> None:
    browser = tab()
    answer = browser.post("/login/", {"login": alice.email, "password": PASSWORD, "next": there})
    assert answer.status_code == 302
    assert answer["Location"] == "/", answer["Location"]
    out = browser.post("/logout/", {"next": there})
    assert "evil" not in out["Location"]
    assert out["Location"] == "/login/"
    browser = signed_in_tab(alice.email)
    again = browser.post("/reauthenticate/", {"password": PASSWORD, "next": there})
    assert (again.status_code, again["Location"]) == (302, "/")


@pytest.mark.parametrize("there", ELSEWHERE)
def test_row69_v3_7_2_after_the_second_step_one_stays_here(
    alice: User, alices_account: Account, there: str
) -> None:
    home = signed_in_tab(alice.email)
    _seed, codes = add_app(home)
    browser = tab()
    asked = browser.post("/login/", {"login": alice.email, "password": PASSWORD, "next": there})
    assert (asked.status_code, asked["Location"]) == (302, "/account/security/authenticate/")
    trust = browser.post("/account/security/authenticate/", {"code": codes[0], "next": there})
    assert (trust.status_code, trust["Location"]) == (302, "/account/security/trust/")
    opened = browser.post("/account/security/trust/", {"action": "skip", "next": there})
    assert (opened.status_code, opened["Location"]) == (302, "/")
    # And where an app is asked for again.
    again = home.post("/account/security/reauthenticate/", {"code": codes[1], "next": there})
    assert (again.status_code, again["Location"]) == (302, "/")


def test_row69_v3_7_2_a_page_of_ours_is_gone_to(alice: User) -> None:
    browser = tab()
    answer = browser.post(
        "/login/", {"login": alice.email, "password": PASSWORD, "next": "/devices/?a=b"}
    )
    assert answer["Location"] == "/devices/?a=b"
    again = browser.post("/reauthenticate/", {"password": PASSWORD, "next": "/devices/?a=b"})
    assert again["Location"] == "/devices/?a=b"


def test_row62_v3_2_1_what_is_downloaded_is_no_page(alice: User, alices_account: Account) -> None:
    browser = signed_in_tab(alice.email)
    export = exports.ask(alice, Origin("203.0.113.5", ""))
    exports.pack_due(timezone.now())
    browser.post("/reauthenticate/", {"password": PASSWORD})
    answer = browser.get(f"/account/privacy/export/{export.pk}/")
    assert answer["Content-Disposition"].startswith("attachment; filename=")
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert answer["Cache-Control"] == "no-store"
    answer.close()


def test_row62_v3_2_1_no_view_can_forget_it() -> None:
    def careless(_request: HttpRequest) -> HttpResponse:
        page = {"Content-Disposition": 'attachment; filename="x.html"'}
        return HttpResponse("<script>alert(1)</script>", headers=page)

    answer = responses.SecurityHeaders(careless)(RequestFactory().get("/"))
    assert answer["Content-Security-Policy"] == "default-src 'none'; sandbox"


def test_the_reset_link_of_allauth_is_named_as_we_think(alice: User) -> None:
    link = f"/password/reset/key/{user_pk_to_url_str(alice)}-"
    answer = tab().get(f"{link}{default_token_generator.make_token(alice)}/")
    assert answer.status_code == 302
    type_password(tab(), alice.email)
