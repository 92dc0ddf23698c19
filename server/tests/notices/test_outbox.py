"""A mail goes out once: not before its act, not after it is useless, not twice, not never."""

from __future__ import annotations

import email
import email.policy
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.db import connection, transaction
from django.utils import timezone

from doorward.notices import carriers, envelope, letter, outbox
from doorward.notices.models import Mail


def a_mail(to: str = "alice@example.org", **more: Any) -> Mail:
    return outbox.enqueue(
        to=to,
        kind="test",
        subject="Hello",
        text="The code is 123456\n",
        html="<p>123456</p>",
        **more,
    )


class Postbox:
    """An SMTP server's side of the conversation: keeps what it accepts, says what it is told to."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.to: list[str] = []
        self.answers: list[str] = []
        self.signed_in: list[bytes] = []

    async def handle_DATA(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, conversation: Envelope
    ) -> str:
        answer = self.answers.pop(0) if self.answers else "250 OK"
        if answer.startswith("250"):
            content = conversation.content
            assert isinstance(content, bytes)
            message = email.message_from_bytes(content, policy=email.policy.default)
            self.mails.append(message)
            self.to.extend(conversation.rcpt_tos)
        return answer

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self,
        _server: SMTP,
        _session: Session,
        conversation: Envelope,
        address: str,
        _options: list[str],
    ) -> str:
        if address.startswith("gone"):
            return "550 no such person"
        conversation.rcpt_tos.append(address)
        return "250 OK"

    def authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, data: LoginPassword
    ) -> AuthResult:
        self.signed_in.append(data.login)
        return AuthResult(success=data.password == b"s3cret/@", handled=False)


@contextmanager
def listening(postbox: Postbox, **options: Any) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(postbox, hostname="127.0.0.1", port=port, **options)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


@pytest.fixture
def postbox() -> Postbox:
    return Postbox()


@pytest.fixture
def smtp(postbox: Postbox, settings: Any) -> Iterator[int]:
    with listening(postbox) as port:
        settings.EMAIL_URL = f"smtp://127.0.0.1:{port}"
        yield port


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that only itself vouches for, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "cert.pem", folder / "key.pem"


def tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.mark.django_db
def test_a_mail_becomes_one_whole_file(settings: Any) -> None:
    mail = a_mail()
    assert outbox.send_due(timezone.now()) == 1
    (file,) = (settings.DATA / "mail").iterdir()
    assert file.name == f"{mail.pk}.eml"
    assert file.stat().st_mode & 0o077 == 0
    message = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
    assert message["To"] == "alice@example.org"
    assert message["Message-ID"].startswith(f"<{mail.pk}@")
    body = message.get_body(("plain",))
    assert body is not None
    assert "123456" in body.get_content()


@pytest.mark.django_db
def test_what_did_not_happen_is_not_told(settings: Any) -> None:
    @transaction.atomic
    def fail_after_telling() -> None:
        a_mail()
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - ours
        fail_after_telling()
    assert outbox.send_due(timezone.now()) == 0
    assert not (settings.DATA / "mail").exists()


@pytest.mark.django_db
def test_v6_5_2_no_code_is_readable_in_the_database_before_or_after_sending() -> None:
    mail = a_mail()
    assert b"123456" not in bytes(mail.body)
    outbox.send_due(timezone.now())
    mail.refresh_from_db()
    assert bytes(mail.body) == b""
    assert mail.sent_at is not None


@pytest.mark.django_db
def test_a_body_moved_to_another_mail_is_not_sent(settings: Any) -> None:
    mine, other = a_mail(), a_mail("charlie@example.org")
    Mail.objects.filter(pk=other.pk).update(body=mine.body)
    outbox.send_due(timezone.now())
    other.refresh_from_db()
    assert other.dropped_at is not None
    assert len(list((settings.DATA / "mail").iterdir())) == 1


def test_a_sealed_text_opens_only_for_its_purpose() -> None:
    sealed = envelope.seal(b"x", purpose="one")
    assert envelope.unseal(sealed, purpose="one") == b"x"
    with pytest.raises(envelope.Unreadable):
        envelope.unseal(sealed, purpose="two")
    with pytest.raises(envelope.Unreadable):
        envelope.unseal(sealed[:-1], purpose="one")


@pytest.mark.django_db
def test_a_mail_is_handed_over_by_smtp(smtp: int, postbox: Postbox) -> None:
    for number in range(3):
        a_mail(f"person{number}@example.org")
    assert outbox.send_due(timezone.now()) == 3
    assert postbox.to == [f"person{number}@example.org" for number in range(3)]
    message = postbox.mails[0]
    assert message["Subject"] == "Hello"
    assert message["Auto-Submitted"] == "auto-generated"
    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/alternative",
        "text/plain",
        "text/html",
    ]


@pytest.mark.django_db
def test_d14_a_mail_put_off_is_tried_again_later_with_the_same_id(
    smtp: int, postbox: Postbox
) -> None:
    mail = a_mail()
    now = timezone.now()
    postbox.answers = ["451 later", "451 later"]
    outbox.send_due(now)
    assert outbox.send_due(now + timedelta(seconds=29)) == 0
    outbox.send_due(now + timedelta(seconds=31))
    assert outbox.send_due(now + timedelta(seconds=80)) == 0
    outbox.send_due(now + timedelta(seconds=95))
    assert [message["Message-ID"] for message in postbox.mails] == [f"<{mail.pk}@localhost>"]
    mail.refresh_from_db()
    assert (mail.tries, mail.sent_at is not None) == (3, True)


@pytest.mark.django_db
def test_a_mail_nobody_will_ever_take_is_dropped_and_the_next_one_goes_out(
    smtp: int, postbox: Postbox
) -> None:
    lost, fine = a_mail("gone@example.org"), a_mail()
    outbox.send_due(timezone.now())
    lost.refresh_from_db()
    fine.refresh_from_db()
    assert lost.dropped_at is not None
    assert lost.last_error == "recipient refused (550)"
    assert bytes(lost.body) == b""
    assert fine.sent_at is not None


@pytest.mark.django_db
def test_d14_while_the_server_is_down_nothing_is_lost_and_one_try_stands_for_all(
    settings: Any, postbox: Postbox
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        settings.EMAIL_URL = f"smtp://127.0.0.1:{gone.getsockname()[1]}"
    for number in range(5):
        a_mail(f"person{number}@example.org")
    now = timezone.now()
    outbox.send_due(now)
    assert Mail.objects.filter(tries=1).count() == 1
    with listening(postbox) as port:
        settings.EMAIL_URL = f"smtp://127.0.0.1:{port}"
        outbox.send_due(now + timedelta(hours=2))
    assert sorted(postbox.to) == [f"person{number}@example.org" for number in range(5)]


@pytest.mark.django_db
def test_d14_a_code_that_has_expired_meanwhile_is_not_sent(settings: Any) -> None:
    now = timezone.now()
    mail = a_mail(not_after=now + timedelta(minutes=10))
    outbox.send_due(now + timedelta(minutes=11))
    mail.refresh_from_db()
    assert mail.dropped_at is not None
    assert bytes(mail.body) == b""
    assert not (settings.DATA / "mail").exists()


@pytest.mark.django_db
def test_d14_a_server_that_hangs_costs_one_timeout(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carriers, "TIMEOUT_S", 0.2)
    for number in range(3):
        a_mail(f"person{number}@example.org")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.EMAIL_URL = f"smtp://127.0.0.1:{silent.getsockname()[1]}"
        begun = time.monotonic()
        outbox.send_due(timezone.now())
        took = time.monotonic() - begun
    assert took < 1.5
    assert Mail.objects.filter(sent_at=None, dropped_at=None).count() == 3


@pytest.mark.django_db
def test_a_killed_workers_mail_is_sent_when_its_lease_has_run_out(settings: Any) -> None:
    a_mail()
    now = timezone.now()
    assert outbox._claim(now) is not None  # and then nothing more is heard of it
    assert outbox.send_due(now + timedelta(minutes=4)) == 0
    assert outbox.send_due(now + timedelta(minutes=6)) == 1
    assert len(list((settings.DATA / "mail").iterdir())) == 1


@pytest.mark.django_db(transaction=True)
def test_two_workers_send_each_mail_once(smtp: int, postbox: Postbox) -> None:
    for number in range(30):
        a_mail(f"person{number}@example.org")
    now = timezone.now()

    def work(_number: int) -> None:
        try:
            outbox.send_due(now)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert sorted(postbox.to) == sorted(f"person{number}@example.org" for number in range(30))


@pytest.mark.django_db
def test_v12_3_2_a_certificate_nobody_vouches_for_is_refused(
    settings: Any, postbox: Postbox, certificate: tuple[Path, Path]
) -> None:
    mail = a_mail()
    with listening(postbox, tls_context=tls(certificate)) as port:
        settings.EMAIL_URL = f"smtp://127.0.0.1:{port}?starttls"
        outbox.send_due(timezone.now())
    mail.refresh_from_db()
    assert postbox.mails == []
    assert mail.sent_at is None
    assert "certificate" in mail.last_error


@pytest.mark.django_db
def test_a_server_that_offers_no_starttls_gets_neither_mail_nor_password(
    settings: Any, postbox: Postbox
) -> None:
    mail = a_mail()
    with listening(postbox) as port:
        settings.EMAIL_URL = f"smtp://alice:s3cret%2F%40@127.0.0.1:{port}?starttls"
        outbox.send_due(timezone.now())
    mail.refresh_from_db()
    assert (postbox.mails, postbox.signed_in) == ([], [])
    assert mail.sent_at is None
    assert mail.dropped_at is None


@pytest.mark.django_db
def test_over_tls_we_sign_in_and_send(
    settings: Any, postbox: Postbox, certificate: tuple[Path, Path]
) -> None:
    a_mail()
    with listening(
        postbox, tls_context=tls(certificate), authenticator=postbox.authenticate
    ) as port:
        settings.EMAIL_URL = (
            f"smtp://alice:s3cret%2F%40@127.0.0.1:{port}?starttls&ca={certificate[0]}"
        )
        assert outbox.send_due(timezone.now()) == 1
    assert len(postbox.mails) == 1
    assert postbox.signed_in == [b"alice"]


@pytest.mark.django_db
def test_v16_2_5_a_wrong_mail_password_is_told_without_the_password(
    settings: Any,
    postbox: Postbox,
    certificate: tuple[Path, Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    mail = a_mail()
    with listening(
        postbox, tls_context=tls(certificate), authenticator=postbox.authenticate
    ) as port:
        settings.EMAIL_URL = (
            f"smtp://alice:wr0ngsecret@127.0.0.1:{port}?starttls&ca={certificate[0]}"
        )
        outbox.send_due(timezone.now())
    mail.refresh_from_db()
    assert mail.last_error == "signing in to the mail server failed (535)"
    shown = capfd.readouterr()
    assert "wr0ngsecret" not in shown.out + shown.err
    assert "123456" not in shown.out + shown.err


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://mail.example.org", "must start with"),
        ("smtp://", "names no server"),
        ("smtp://mail.example.org:many", "not a number"),
        ("smtp://a:pw@mail.example.org", "in clear"),
        ("smtp://mail.example.org?verify=no", "unknown option 'verify'"),
    ],
)
def test_an_address_that_names_no_safe_way_is_refused(url: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(carriers.BadMailAddress, match=why) as refusal:
        carriers.from_url(url, data=tmp_path)
    assert "pw@" not in str(refusal.value)


@pytest.mark.django_db
def test_a43_hostile_text_is_inert_in_subject_text_and_html(smtp: int, postbox: Postbox) -> None:
    evil = "x\r\nBcc: charlie@example.org\r\n\r\n<img src=x onerror=alert(1)>\u202e{{7*7}}"
    written = letter.Letter(kind="test", subject=evil, lines=[evil], closing=(evil,))
    letter.post(written, to="alice@example.org")
    outbox.send_due(timezone.now())
    (message,) = postbox.mails
    assert postbox.to == ["alice@example.org"]
    assert message["Bcc"] is None
    assert "\n" not in message["Subject"]
    text, html = (message.get_body((kind,)) for kind in ("plain", "html"))
    assert text is not None
    assert html is not None
    assert "<img" not in html.get_content()
    assert "&lt;img" in html.get_content()
    assert "{{7*7}}" in text.get_content()
    assert "\u202e" not in text.get_content() + html.get_content()
    assert "\nBcc:" not in text.get_content()
