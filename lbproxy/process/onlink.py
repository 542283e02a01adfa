"""Which networks are directly connected: no router stands between us and a server there (retry.unacked: auto)."""

from __future__ import annotations

import ipaddress
import socket
import struct
from pathlib import Path

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def on_link_networks(ipv4_routes: str, ipv6_routes: str) -> tuple[Network, ...]:
    """Networks without a gateway, from the text of /proc/net/route and /proc/net/ipv6_route."""
    networks: list[Network] = []
    for line in ipv4_routes.splitlines()[1:]:
        columns = line.split()
        if len(columns) < 8 or int(columns[2], 16) != 0 or int(columns[7], 16) == 0:
            continue
        address, mask = (socket.inet_ntoa(struct.pack("<I", int(columns[index], 16))) for index in (1, 7))
        networks.append(ipaddress.IPv4Network(f"{address}/{mask}", strict=False))
    for line in ipv6_routes.splitlines():
        columns = line.split()
        if len(columns) < 5 or int(columns[4], 16) != 0 or int(columns[1], 16) == 0:
            continue
        address6 = ipaddress.IPv6Address(int(columns[0], 16))
        networks.append(ipaddress.IPv6Network(f"{address6}/{int(columns[1], 16)}", strict=False))
    return tuple(networks)


def read_on_link_networks() -> tuple[Network, ...]:
    """This machine's, or none where /proc does not tell."""
    texts = []
    for name in ("route", "ipv6_route"):
        try:
            texts.append(Path("/proc/net", name).read_text())
        except OSError:
            texts.append("")
    return on_link_networks(*texts)
