"""A computer's own key for passkeys, made of software: WebAuthn's two ceremonies, no browser."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import struct
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fido2 import cbor

# Somebody was there, showed a finger, and a key comes with it (WebAuthn, 6.1).
PRESENT: Final = 0x01
PRESENT_AND_VERIFIED: Final = 0x05
HAS_KEY: Final = 0x40


class SoftKey:
    """One passkey, for one site."""

    def __init__(
        self, origin: str, *, stays: bool | None = True, flags: int = PRESENT_AND_VERIFIED
    ) -> None:
        self.origin = origin
        # Whether it can be found without being named, as the browser says; and what is shown.
        self.stays, self.flags = stays, flags
        self.name = secrets.token_bytes(16)
        self.owner = ""
        self.secret = ec.generate_private_key(ec.SECP256R1())

    def registered(self, options: dict[str, Any]) -> dict[str, Any]:
        """Answer what a site sends that wants a new passkey."""
        wanted = options["publicKey"]
        self.owner = wanted["user"]["id"]
        at = self.secret.public_key().public_numbers()
        # ES256 on P-256 (RFC 9053, 2.1 and 7.1).
        public = cbor.encode(
            {1: 2, 3: -7, -1: 1, -2: at.x.to_bytes(32, "big"), -3: at.y.to_bytes(32, "big")}
        )
        data = self._data(wanted["rp"]["id"], self.flags | HAS_KEY)
        data += bytes(16) + struct.pack(">H", len(self.name)) + self.name + public
        made = cbor.encode({"fmt": "none", "attStmt": {}, "authData": data})
        client = self._client("webauthn.create", wanted["challenge"])
        return self._answer(attestationObject=_text(made), clientDataJSON=_text(client))

    def proved(self, options: dict[str, Any]) -> dict[str, Any]:
        """Answer what a site sends that wants to know whose passkey this is."""
        wanted = options["publicKey"]
        data = self._data(wanted["rpId"], self.flags)
        client = self._client("webauthn.get", wanted["challenge"])
        signed = self.secret.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        return self._answer(
            authenticatorData=_text(data),
            clientDataJSON=_text(client),
            signature=_text(signed),
            userHandle=self.owner,
        )

    def _data(self, site: str, flags: int) -> bytes:
        return hashlib.sha256(site.encode()).digest() + struct.pack(">BI", flags, 0)

    def _client(self, act: str, challenge: str) -> bytes:
        return json.dumps({"type": act, "challenge": challenge, "origin": self.origin}).encode()

    def _answer(self, **response: str) -> dict[str, Any]:
        return {
            "id": _text(self.name),
            "rawId": _text(self.name),
            "type": "public-key",
            "response": response,
            "clientExtensionResults": {
                "credProps": {} if self.stays is None else {"rk": self.stays}
            },
        }


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
