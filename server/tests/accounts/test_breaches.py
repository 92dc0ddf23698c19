"""The online question whether a password was leaked: little is told, and an outage stops nobody."""

from __future__ import annotations

import hashlib
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.core.exceptions import ValidationError
from django.test import Client

from doorward.accounts import breaches, password_rules
from doorward.accounts.models import User

LEAKED = "nine gray herons wade at noon"
FINE = "eight red kites hover at dusk"


class Service(ThreadingHTTPServer):
    """A range service of our own, which remembers all that it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.mode = "well"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/range"


class Answers(BaseHTTPRequestHandler):
    server: Service

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        match self.server.mode:
            case "broken":
                self.send_error(503)
            case "elsewhere":
                self.send_response(302)
                self.send_header("Location", "/range/other")
                self.end_headers()
            case "endless":
                self.send_response(200)
                self.end_headers()
                try:
                    while True:
                        self.wfile.write(b"0" * 35 + b":1\r\n")
                except OSError:
                    return
            case "silent":
                time.sleep(5)
            case _:
                digest = hashlib.sha1(LEAKED.encode(), usedforsecurity=False).hexdigest().upper()
                padding = hashlib.sha1(FINE.encode(), usedforsecurity=False).hexdigest().upper()
                body = f"{'0' * 35}:7\r\n{digest[5:]}:3\r\n{padding[5:]}:0\r\n".encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

    def log_message(self, *_args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def service(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    serving = Service()
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    settings.BREACH_CHECK_URL = serving.address
    monkeypatch.setattr(breaches, "_rests_until", 0.0)
    yield serving
    serving.shutdown()
    serving.server_close()


def refusal(password: str) -> str:
    try:
        password_rules.PasswordRules().validate(password, None)
    except ValidationError as error:
        return str(error.error_list[0].code)
    return ""


def test_v6_2_12_a_leaked_password_is_refused_and_only_five_digits_are_sent(
    service: Service,
) -> None:
    assert refusal(LEAKED) == "password_leaked"
    digest = hashlib.sha1(LEAKED.encode(), usedforsecurity=False).hexdigest().upper()
    ((path, headers),) = service.asked
    assert path == f"/range/{digest[:5]}"
    sent = f"{path} {headers}".upper()
    assert digest[5:] not in sent
    assert LEAKED.upper() not in sent
    assert headers["Add-Padding"] == "true"
    assert "Cookie" not in headers


def test_v6_2_12_lines_that_only_pad_count_for_nothing(service: Service) -> None:
    assert refusal(FINE) == ""


def test_a_password_that_is_refused_anyway_is_not_asked_about(service: Service) -> None:
    assert refusal("passwordpassword") == "password_too_common"
    assert not service.asked


@pytest.mark.parametrize("mode", ["broken", "elsewhere", "endless"])
def test_v6_2_12_a_service_that_answers_wrong_stops_nobody_and_is_left_alone(
    service: Service, mode: str
) -> None:
    service.mode = mode
    assert refusal(LEAKED) == ""
    service.mode = "well"
    assert refusal(LEAKED) == "", "asked again at once"
    assert [path for path, _headers in service.asked] == [service.asked[0][0]], "not redirected"


def test_v6_2_12_a_silent_service_costs_two_seconds_once(service: Service) -> None:
    service.mode = "silent"
    begun = time.monotonic()
    assert refusal(LEAKED) == ""
    assert time.monotonic() - begun < breaches.SECONDS + 1.5
    asked = len(service.asked)
    assert refusal(LEAKED) == ""
    assert len(service.asked) == asked, "not waited for a second time"


def test_v12_3_2_a_service_without_a_good_certificate_is_not_believed(
    service: Service, settings: Any, tmp_path: Path
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "own.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    service.socket = context.wrap_socket(service.socket, server_side=True)
    settings.BREACH_CHECK_URL = f"https://localhost:{service.server_port}/range"
    assert refusal(LEAKED) == ""
    assert not service.asked


def test_v6_2_12_nobody_is_asked_unless_the_operator_chose_it(
    service: Service, settings: Any
) -> None:
    settings.BREACH_CHECK_URL = ""
    assert refusal(LEAKED) == ""
    assert not service.asked


@pytest.mark.django_db
def test_v6_2_12_it_is_asked_at_sign_up_change_and_choosing_anew(
    service: Service, alices_browser: Client, alice: User
) -> None:
    from server.tests.conftest import PASSWORD

    words = "This is known from a leak"
    stranger = Client(HTTP_HOST="localhost")
    answer = stranger.post("/signup/", {"email": "new@example.org", "password1": LEAKED})
    assert words in answer.content.decode()
    answer = alices_browser.post(
        "/password/change/", {"oldpassword": PASSWORD, "password1": LEAKED, "password2": LEAKED}
    )
    assert words in answer.content.decode()
    from allauth.account.forms import default_token_generator
    from allauth.account.utils import user_pk_to_url_str

    link = f"/password/reset/key/{user_pk_to_url_str(alice)}-"
    first = stranger.get(f"{link}{default_token_generator.make_token(alice)}/")
    answer = stranger.post(first["Location"], {"password1": LEAKED, "password2": LEAKED})
    assert words in answer.content.decode()


@pytest.mark.django_db
def test_v6_2_12_an_operator_chooses_by_the_same_rules(service: Service) -> None:
    from doorward.accounts import setup

    made = setup.make_operator("olga@example.org")
    browser = Client(HTTP_HOST="localhost")
    first = browser.get(made.link.removeprefix("http://localhost:8000"))
    answer = browser.post(first["Location"], {"password1": LEAKED, "password2": LEAKED})
    assert "This is known from a leak" in answer.content.decode()
    answer = browser.post(
        first["Location"], {"password1": "passwordpassword", "password2": "passwordpassword"}
    )
    assert "lists guessers begin with" in answer.content.decode()
