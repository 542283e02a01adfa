"""Nobody new at listening sockets that are about to close.

Closing one resets who came between the last accept and the close. So for a moment before it the kernel drops what
begins a connection (a SYN), as if it were lost on its way: the client's kernel sends it again after a second, and hears
then that nobody listens, or reaches who listens after us. Handshakes that have begun go on, and are accepted.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from typing import Final

# <asm-generic/socket.h>; Python's socket module does not name them.
_ATTACH_FILTER: Final = 26
_DETACH_FILTER: Final = 27
# A classic BPF program (<linux/filter.h>: code, jump if true, jump if false, operand) that sees a segment from its TCP
# header on: 0 drops it, anything else is how much of it is kept.
_DROP_SYN: Final = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the octet of the flags (RFC 9293 section 3.1)
        (0x45, 0, 1, 0x02),  # is SYN set?
        (0x06, 0, 0, 0),
        (0x06, 0, 0, 0xFFFFFFFF),
    )
)


@contextlib.contextmanager
def held_off(filenos: Iterable[int]) -> Iterator[None]:
    """Until the end no connection begins at these TCP sockets. Others, and kernels that can't do it, stay as they are.

    The sockets may be closed meanwhile. Whoever else has them, as a service manager may, accepts again afterwards.
    Several processes that have the same sockets may do this at once: the first that ends lets newcomers in again.
    """
    program = ctypes.create_string_buffer(_DROP_SYN, len(_DROP_SYN))
    option = struct.pack("HP", len(_DROP_SYN) // 8, ctypes.addressof(program))
    with contextlib.ExitStack() as held:
        for fileno in filenos:
            sock = held.enter_context(socket.socket(fileno=os.dup(fileno)))
            if sock.family in (socket.AF_INET, socket.AF_INET6):
                with contextlib.suppress(OSError):  # not Linux, or a sandbox without it: who comes now may be reset
                    sock.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, option)
                    held.callback(_let_in, sock)
        yield


def _let_in(sock: socket.socket) -> None:
    with contextlib.suppress(FileNotFoundError):  # another process that has it was first
        sock.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)
