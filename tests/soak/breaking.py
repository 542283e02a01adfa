"""What servers and clients that misbehave have in common."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

RETRY_ME_S: Final = 0.4
"""How long /retry-me takes for its 500."""
_LINGER_RESET: Final = struct.pack("ii", 1, 0)


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    writer.transport.abort()
