"""Whose tries are counted: the address that can be believed."""

from __future__ import annotations

import pytest

from doorward.gateway import addresses


def of(client: str | None, forwarded: list[str], proxies: int) -> str:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    scope = {"client": (client, 1) if client else None, "headers": headers}
    return addresses.of(scope, proxies)


@pytest.mark.parametrize(
    ("client", "forwarded", "proxies", "expected"),
    [
        ("203.0.113.7", [], 0, "203.0.113.7"),
        ("203.0.113.7", ["1.1.1.1"], 0, "203.0.113.7"),
        ("10.0.0.1", ["203.0.113.7"], 1, "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.7"], 1, "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.7"], 1, "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.7, 10.0.0.2"], 2, "203.0.113.7"),
        # Too few entries: it did not come through our proxies, so only the peer is believed.
        ("203.0.113.7", [], 1, "203.0.113.7"),
        ("203.0.113.7", ["1.1.1.1"], 2, "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", [], 0, "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", [], 0, "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", [], 0, "203.0.113.7"),
        ("fe80::1%eth0", [], 0, "fe80::/64"),
        ("10.0.0.1", ["not an address"], 1, "unknown"),
        (None, [], 0, "unknown"),
    ],
)
def test_a02_only_what_our_own_proxies_wrote_is_believed(
    client: str | None, forwarded: list[str], proxies: int, expected: str
) -> None:
    assert of(client, forwarded, proxies) == expected
