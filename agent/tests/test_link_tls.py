"""The link over real sockets: certificates that prove nothing, and servers that never finish."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from doorward_agent import link
from doorward_protocol import messages

KEY = Ed25519PrivateKey.generate()
NOW = dt.datetime.now(dt.UTC)
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Authority:
    """A certificate authority of our own, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Alice's authority")])
        certificate = self._signed(self.name, self.key.public_key(), None, days=30)
        self.file = folder / "ca.pem"
        self.file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        address: str | None,
        *,
        days: int,
    ) -> x509.Certificate:
        authority = address is None
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - dt.timedelta(days=60))
            .not_valid_after(NOW + dt.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    key_cert_sign=authority,
                    crl_sign=authority,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        )
        if address is not None:
            names = [x509.IPAddress(ipaddress.ip_address(address))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def context(self, address: str = "127.0.0.1", *, days: int = 10) -> ssl.SSLContext:
        """What a server with a certificate of ours for this address uses."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, address)])
        certificate = self._signed(name, key.public_key(), address, days=days)
        path = self.folder / "server.pem"
        path.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + certificate.public_bytes(Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def kind(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request as a server of ours does."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    await reader.readexactly(int(line.partition(b":")[2]))
            now = int(time.time() * 1000)
            body = (
                messages.encode(
                    messages.TokenAnswer(
                        device_id=UUID(int=1), token="t", expires_at=now + 10**6, server_time=now
                    )
                )
                if b"/token" in head
                else messages.encode(messages.ReportAnswer())
            )
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()


async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Begin an answer and send a byte of it now and then, for ever."""
    with contextlib.suppress(ConnectionError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take everything and say nothing."""
    with contextlib.suppress(ConnectionError):
        while await reader.read(1000):
            pass


@contextlib.asynccontextmanager
async def serving(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    tasks: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(one, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"{'https' if context else 'http'}://127.0.0.1:{port}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def report(
    serve: Serve, context: ssl.SSLContext | None = None, *, ca_file: Path | None = None
) -> messages.ReportAnswer:
    async def go() -> messages.ReportAnswer:
        async with serving(serve, context) as address:
            talk = link.Link(address, KEY, version="1", ca_file=str(ca_file or ""))
            try:
                return await talk.report([b"{}"])
            finally:
                await talk.close()

    return asyncio.run(go())


def test_asvs_12_1_1_a_certificate_of_nobody_we_know_is_refused(authority: Authority) -> None:
    with pytest.raises(link.ServerUntrusted, match="--ca-file"):
        report(kind, authority.context())


def test_a_certificate_of_our_own_authority_is_trusted_when_named(authority: Authority) -> None:
    found = report(kind, authority.context(), ca_file=authority.file)
    assert found == messages.ReportAnswer()


def test_asvs_12_1_1_a_certificate_for_another_name_is_refused(authority: Authority) -> None:
    with pytest.raises(link.ServerUntrusted):
        report(kind, authority.context("192.0.2.1"), ca_file=authority.file)


def test_asvs_12_1_1_a_certificate_that_has_expired_is_refused(authority: Authority) -> None:
    with pytest.raises(link.ServerUntrusted, match="expired"):
        report(kind, authority.context(days=-1), ca_file=authority.file)


def test_asvs_12_1_1_old_tls_is_refused(authority: Authority) -> None:
    context = authority.context()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(link.ServerUnreachable):
        report(kind, context, ca_file=authority.file)


def test_a_server_that_sends_a_byte_now_and_then_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "CALL_SECONDS", 0.2)
    with pytest.raises(link.ServerUnreachable, match="in time"):
        report(slow)


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "READ_SECONDS", 0.2)
    with pytest.raises(link.ServerUnreachable, match="in time"):
        report(silent)


def test_the_connection_is_kept() -> None:
    connections = 0

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await kind(reader, writer)

    report(counted)
    assert connections == 1, "token and report travelled on one"
