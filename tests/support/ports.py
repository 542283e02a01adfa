"""Ports for what cannot take port 0."""

from __future__ import annotations

import socket


def consecutive_ports(count: int) -> int:
    """The first of `count` ports in a row that were all free a moment ago."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port = int(first.getsockname()[1])
            try:
                for number in range(port + 1, port + count):
                    socket.create_server(("127.0.0.1", number)).close()
            except OSError:
                continue
            return port
