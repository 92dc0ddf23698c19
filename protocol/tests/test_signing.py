"""How a device proves itself."""

import base64
import hashlib
import json
import os
import struct
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from doorward_protocol import signing
from doorward_protocol.messages import Jwk

NOW = 1_800_000_000
BODY = b'{"protocol":{"min":1,"max":1}}'
PATH = "/device/v1/token"


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def signed(key: Ed25519PrivateKey, *, created: int = NOW, body: bytes = BODY) -> dict[str, str]:
    headers = signing.sign(key, method="POST", path=PATH, body=body, created=created)
    return {name.lower(): value for name, value in headers.items()}


def check(
    headers: dict[str, str],
    known: Ed25519PublicKey,
    *,
    method: str = "POST",
    path: str = PATH,
    query: str = "",
    body: bytes = BODY,
    now: float = NOW,
) -> str:
    print_of_known = signing.thumbprint(signing.jwk_of(known))
    return signing.verify(
        method=method,
        path=path,
        query=query,
        headers=headers,
        body=body,
        find_key=lambda keyid: known if keyid == print_of_known else None,
        now=now,
    )


def test_a_signed_request_tells_whose_it_is(key: Ed25519PrivateKey) -> None:
    keyid = check(signed(key), key.public_key())
    assert keyid == signing.thumbprint(signing.jwk_of(key.public_key()))


def test_an_empty_body_and_a_query_are_signed_too(key: Ed25519PrivateKey) -> None:
    raw = signing.sign(key, method="delete", path="/device/v1/self", query="a=1", created=NOW)
    headers = {name.lower(): value for name, value in raw.items()}
    public = key.public_key()
    check(headers, public, method="DELETE", path="/device/v1/self", query="a=1", body=b"")
    with pytest.raises(signing.SignatureRefused):
        check(headers, public, method="DELETE", path="/device/v1/self", query="a=2", body=b"")


@pytest.mark.parametrize(
    "change",
    [
        {"method": "PUT"},
        {"path": "/device/v1/enroll"},
        {"query": "x=1"},
        {"body": BODY + b" "},
        {"body": b""},
    ],
)
def test_a_request_changed_on_the_way_is_refused(
    key: Ed25519PrivateKey, change: dict[str, str | bytes]
) -> None:
    with pytest.raises(signing.SignatureRefused) as refusal:
        check(signed(key), key.public_key(), **change)  # type: ignore[arg-type]  # one of several
    assert not isinstance(refusal.value, signing.ClockSkew)


def test_another_key_under_the_same_name_is_refused(key: Ed25519PrivateKey) -> None:
    stranger = Ed25519PrivateKey.generate()
    with pytest.raises(signing.SignatureRefused):
        signing.verify(
            method="POST",
            path=PATH,
            query="",
            headers=signed(key),
            body=BODY,
            find_key=lambda keyid: stranger.public_key(),
            now=NOW,
        )


@pytest.mark.parametrize("seconds", [-300, 0, 30])
def test_inside_the_window_a_signature_counts(key: Ed25519PrivateKey, seconds: int) -> None:
    check(signed(key, created=NOW + seconds), key.public_key())


@pytest.mark.parametrize("seconds", [-301, 31, -(10**9), 10**9])
def test_outside_the_window_the_clock_is_named(key: Ed25519PrivateKey, seconds: int) -> None:
    with pytest.raises(signing.ClockSkew):
        check(signed(key, created=NOW + seconds), key.public_key())


def test_a_wrong_signature_with_a_wrong_clock_is_not_told_the_time(key: Ed25519PrivateKey) -> None:
    with pytest.raises(signing.SignatureRefused) as refusal:
        check(signed(key, created=NOW + 999), key.public_key(), body=b"{}")
    assert not isinstance(refusal.value, signing.ClockSkew)


@pytest.mark.parametrize("missing", ["signature", "signature-input", "content-digest"])
def test_no_header_may_be_missing(key: Ed25519PrivateKey, missing: str) -> None:
    headers = signed(key)
    del headers[missing]
    with pytest.raises(signing.SignatureRefused):
        check(headers, key.public_key())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"@query" ', ""),
        ('"content-digest"', ""),
        ('tag="doorward-device"', 'tag="other"'),
        (';alg="ed25519"', ""),
        (';alg="ed25519"', ';alg="hmac-sha256"'),
        (f";created={NOW}", ""),
        (f";created={NOW}", f";created={NOW + 1}"),
    ],
)
def test_nothing_may_be_left_out_of_the_signature(
    key: Ed25519PrivateKey, old: str, new: str
) -> None:
    headers = signed(key)
    assert old in headers["signature-input"]
    headers["signature-input"] = headers["signature-input"].replace(old, new)
    with pytest.raises(signing.SignatureRefused):
        check(headers, key.public_key())


def test_a_signature_that_does_not_name_its_algorithm_is_refused(key: Ed25519PrivateKey) -> None:
    from http_message_signatures import HTTPMessageSigner
    from http_message_signatures.algorithms import ED25519

    message = signing._Message("POST", signing._ANY_ORIGIN + PATH)
    HTTPMessageSigner(signature_algorithm=ED25519, key_resolver=signing._OneKey(private=key)).sign(
        message,
        key_id=signing.thumbprint(signing.jwk_of(key.public_key())),
        created=datetime.fromtimestamp(NOW, tz=UTC),
        tag=signing.TAG,
        include_alg=False,
        covered_component_ids=signing.COVERED,
        body=BODY,
    )
    headers = {name.lower(): value for name, value in message.headers.items()}
    with pytest.raises(signing.SignatureRefused, match="alg"):
        check(headers, key.public_key())


@given(st.binary(max_size=200), st.sampled_from(["signature", "signature-input", "content-digest"]))
def test_whatever_the_headers_hold_is_refused_in_order(noise: bytes, name: str) -> None:
    key = Ed25519PrivateKey.generate()
    headers = signed(key)
    headers[name] = noise.decode("latin-1")
    with pytest.raises(signing.SignatureRefused):
        check(headers, key.public_key())


def test_the_thumbprint_is_that_of_rfc_8037() -> None:
    # RFC 8037, appendix A.3.
    jwk = Jwk(kty="OKP", crv="Ed25519", x="11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwaaPcHURo")
    example = Jwk(kty="OKP", crv="Ed25519", x="11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
    assert signing.thumbprint(example) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    assert signing.thumbprint(jwk) != signing.thumbprint(example)


def test_a_key_has_one_spelling_and_so_one_thumbprint(key: Ed25519PrivateKey) -> None:
    jwk = signing.jwk_of(key.public_key())
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(jwk.x[-1])
    for other in range(last & ~3, (last & ~3) + 4):
        twin = Jwk(kty="OKP", crv="Ed25519", x=jwk.x[:-1] + alphabet[other])
        if other == last:
            assert signing.public_key_of(twin).public_bytes_raw() == (
                key.public_key().public_bytes_raw()
            )
        else:
            with pytest.raises(ValueError, match="one spelling"):
                signing.public_key_of(twin)


def test_a_key_change_needs_both_keys(key: Ed25519PrivateKey) -> None:
    old = signing.thumbprint(signing.jwk_of(Ed25519PrivateKey.generate().public_key()))
    jwk = signing.jwk_of(key.public_key())
    proof = signing.prove_key_change(key, old)
    assert signing.key_change_is_proved(jwk, proof, old)
    assert not signing.key_change_is_proved(jwk, proof, old[::-1])
    stranger = signing.jwk_of(Ed25519PrivateKey.generate().public_key())
    assert not signing.key_change_is_proved(stranger, proof, old)
    assert not signing.key_change_is_proved(jwk, "!" * 86, old)


TOKEN_KEY = os.urandom(32)


def token(device: UUID, *, epoch: int = 3, expires_at: int = NOW + 3600) -> str:
    return signing.make_token(TOKEN_KEY, device_id=device, epoch=epoch, expires_at=expires_at)


def test_a_token_carries_device_epoch_and_end() -> None:
    device = uuid4()
    assert signing.check_token(TOKEN_KEY, token(device), now=NOW) == (device.bytes, 3, NOW + 3600)


def test_a_token_ends() -> None:
    text = token(uuid4())
    assert signing.check_token(TOKEN_KEY, text, now=NOW + 3599) is not None
    assert signing.check_token(TOKEN_KEY, text, now=NOW + 3600) is None


def test_a_token_of_another_key_or_kind_is_none() -> None:
    device = uuid4()
    content = device.bytes + struct.pack(">IQ", 3, NOW + 3600)
    other_purpose = hashlib.blake2b(content, key=TOKEN_KEY, digest_size=32).digest()
    forged = base64.urlsafe_b64encode(content + other_purpose).rstrip(b"=").decode()
    assert signing.check_token(TOKEN_KEY, forged, now=NOW) is None
    assert signing.check_token(os.urandom(32), token(device), now=NOW) is None


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_one_changed_bit_spoils_a_token(place: int, change: int) -> None:
    raw = bytearray(signing.from_base64url(token(UUID(int=7))))
    raw[place % len(raw)] ^= change
    assert signing.check_token(TOKEN_KEY, signing.base64url(bytes(raw)), now=NOW) is None


@given(st.text(max_size=120))
def test_no_text_but_a_token_is_a_token(text: str) -> None:
    assert signing.check_token(TOKEN_KEY, text, now=NOW) is None


def test_the_jwk_is_plain_json(key: Ed25519PrivateKey) -> None:
    jwk = signing.jwk_of(key.public_key())
    assert json.loads(json.dumps({"kty": jwk.kty, "crv": jwk.crv, "x": jwk.x}))["kty"] == "OKP"
