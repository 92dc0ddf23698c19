"""Where a request came from, as far as that can be believed."""

from __future__ import annotations

import ipaddress
from typing import Any


def of(scope: dict[str, Any], trusted_proxies: int) -> str:
    """The address that limits are counted by: IPv4 whole, IPv6 as its /64.

    X-Forwarded-For counts only as far as our own proxies wrote it. When it holds fewer entries than
    there are proxies, the request did not come through them, and only the peer itself is believed.
    """
    peer = scope.get("client")
    address = str(peer[0]) if peer else ""
    if trusted_proxies:
        lines = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        hops = [hop.strip() for hop in b",".join(lines).decode("latin-1").split(",") if hop.strip()]
        if len(hops) >= trusted_proxies:
            address = hops[-trusted_proxies]
    return keyed(address)


def keyed(address: str) -> str:
    """The address as limits are counted by it; "unknown" for what is no address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        # Whoever has one IPv6 address has the 2^64 around it.
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
