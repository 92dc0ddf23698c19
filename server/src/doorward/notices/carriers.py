"""The ways out for a mail: files in a folder, or an SMTP server."""

from __future__ import annotations

import os
import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

# Each step of a conversation (connect, TLS, sign in, each command) may take this long.
TIMEOUT_S: Final = 15
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class BadMailAddress(Exception):
    """DOORWARD_EMAIL_URL names no way out; the text is for the operator and holds no secret."""


class Refused(Exception):
    """The mail will never be accepted as it is."""


class TryLater(Exception):
    """Not now. ``everything``: the way itself is closed, the next mail would fare the same."""

    def __init__(self, why: str, *, everything: bool) -> None:
        super().__init__(why)
        self.everything = everything


class Carrier(Protocol):
    """Takes mails out, one after the other."""

    def deliver(self, message: EmailMessage) -> None:
        """Hand the mail over; it is accepted when this returns. Raises Refused or TryLater."""

    def close(self) -> None:
        """End the conversation, if there is one."""


@dataclass(frozen=True)
class SmtpServer:
    """Where and how to hand over mail, read from one address."""

    host: str
    port: int
    user: str
    password: str
    tls: bool
    starttls: bool
    ca: str

    def __repr__(self) -> str:
        return f"SmtpServer({self.host}:{self.port})"


def from_url(url: str, *, data: Path) -> Carrier:
    """Return the way out that DOORWARD_EMAIL_URL names. Raises BadMailAddress."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        folder = Path(unquote(parts.path)) if parts.path else data / "mail"
        return FolderCarrier(folder)
    if parts.scheme in {"smtp", "smtps"}:
        return SmtpCarrier(_server(url))
    raise BadMailAddress("DOORWARD_EMAIL_URL must start with file:, smtp:// or smtps://.")


def _server(url: str) -> SmtpServer:
    parts = urlsplit(url)
    options = parse_qs(parts.query, keep_blank_values=True)
    unknown = set(options) - {"starttls", "ca"}
    if unknown:
        raise BadMailAddress(f"DOORWARD_EMAIL_URL has an unknown option {min(unknown)!r}.")
    try:
        port = parts.port
    except ValueError:
        raise BadMailAddress("DOORWARD_EMAIL_URL has a port that is not a number.") from None
    if not parts.hostname:
        raise BadMailAddress("DOORWARD_EMAIL_URL names no server.")
    tls, starttls = parts.scheme == "smtps", "starttls" in options
    if parts.username and not tls and not starttls and parts.hostname not in _LOOPBACK:
        raise BadMailAddress(
            "DOORWARD_EMAIL_URL would send the mail password in clear: add ?starttls or use smtps://."
        )
    return SmtpServer(
        host=parts.hostname,
        port=port or (465 if tls else 587 if starttls else 25),
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        tls=tls,
        starttls=starttls,
        ca=options.get("ca", [""])[-1],
    )


class FolderCarrier:
    """Writes each mail as one .eml file, whole or not at all; the same mail twice is one file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def deliver(self, message: EmailMessage) -> None:
        """Write the mail. Raises TryLater when the folder can't be written."""
        name = str(message["Message-ID"]).strip("<>").partition("@")[0]
        fresh = self._folder / f".{name}.part"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(bytes(message))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._folder / f"{name}.eml")
        except OSError as error:
            raise TryLater(f"the mail folder: {error.strerror}", everything=True) from error

    def close(self) -> None:
        """Do nothing: files have no conversation."""


class SmtpCarrier:
    """Speaks to one SMTP server, over one connection for as many mails as there are."""

    def __init__(self, server: SmtpServer) -> None:
        self._server = server
        self._connection: smtplib.SMTP | None = None

    def deliver(self, message: EmailMessage) -> None:
        """Hand the mail over. Raises Refused on a 5xx about this mail, TryLater on all else."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._connection.send_message(message)
        except smtplib.SMTPRecipientsRefused as error:
            code = max(code for code, _text in error.recipients.values())
            raise _of_code(code, "recipient") from None
        except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
            raise _of_code(error.smtp_code, "mail") from None
        except smtplib.SMTPNotSupportedError:
            self.close()
            raise Refused("the mail server takes no address like this one") from None
        except smtplib.SMTPAuthenticationError as error:
            self.close()
            raise TryLater(
                f"signing in to the mail server failed ({error.smtp_code})", everything=True
            ) from None
        except ssl.SSLCertVerificationError as error:
            self.close()
            raise TryLater(
                f"the mail server's certificate: {error.verify_message}", everything=True
            ) from None
        except (OSError, smtplib.SMTPException) as error:
            self.close()
            # The class only: the text may repeat what was sent.
            raise TryLater(f"the mail server: {type(error).__name__}", everything=True) from None

    def close(self) -> None:
        """End the conversation, politely if the server still listens."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.quit()
            except (OSError, smtplib.SMTPException):
                connection.close()

    def _connect(self) -> smtplib.SMTP:
        server = self._server
        context = ssl.create_default_context(cafile=server.ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        connection: smtplib.SMTP
        if server.tls:
            connection = smtplib.SMTP_SSL(
                server.host, server.port, timeout=TIMEOUT_S, context=context
            )
        else:
            connection = smtplib.SMTP(server.host, server.port, timeout=TIMEOUT_S)
        try:
            if server.starttls:
                _start_tls(connection, context)
            if server.user:
                connection.login(server.user, server.password)
        except BaseException:
            connection.close()
            raise
        return connection


def _start_tls(connection: smtplib.SMTP, context: ssl.SSLContext) -> None:
    try:
        connection.starttls(context=context)
    except smtplib.SMTPNotSupportedError:
        # Somebody on the way may have struck the offer out: wait, never speak in clear instead.
        raise TryLater("the mail server offers no STARTTLS", everything=True) from None


def _of_code(code: int, what: str) -> Exception:
    if code >= 500:
        return Refused(f"{what} refused ({code})")
    return TryLater(f"{what} put off ({code})", everything=code == 421)
