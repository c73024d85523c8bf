"""What the host of an address tells without asking anybody: this machine, or one never to be talked to.

Used by the settings and by the client, so that all of them decide alike. Pure: any thread.
"""

from __future__ import annotations

import functools
import ipaddress
import socket


@functools.lru_cache(256)
def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that `host` spells, in any form that the resolver takes; None for a name."""
    bare = host.strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(bare))
        except (OSError, ValueError):
            return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def is_link_local(host: str) -> bool:
    """Return whether `host` is an address of 169.254/16 or fe80::/10: where clouds keep their credentials."""
    address = address_of(host)
    return address is not None and address.is_link_local


def is_loopback(host: str) -> bool:
    """Return whether `host` is this machine, by name or address."""
    if host.lower().rstrip(".") == "localhost":
        return True
    address = address_of(host)
    return address is not None and address.is_loopback
