"""Connections that one worker has accepted and another one shall have.

Each worker has a mailbox, a pair of sockets that all have. What is in it stays there when the worker dies, for its
successor: a message is the listener's name and the client's address, with the connection.
"""

from __future__ import annotations

import asyncio
import json
import select
import socket
from array import array
from collections.abc import Callable, Sequence
from typing import Final

from lbproxy.dataplane.client.gate import Neighbours

MOST_BYTES: Final = 1 << 16
AT_ONCE: Final = 64
FRESH_S: Final = 1.0
"""Whose loop has not run for so long gets none: it may be stopped, and has few because of that."""
Mailbox = tuple[socket.socket, socket.socket]
"""Where one writes, and where one reads."""


def mailbox() -> Mailbox:
    """Raises OSError."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for end in pair:
        end.setblocking(False)
    return pair


class Post(Neighbours):
    """The mailboxes of all, as worker `number` uses them, 0 and up. can_take: may this worker get one now?

    take: with a listener's name, a connection, which it owns then, and its peer; False if there is no such listener.
    """

    def __init__(
        self,
        boxes: Sequence[Mailbox],
        number: int,
        can_take: Callable[[int], bool],
        take: Callable[[str, socket.socket, object], bool],
    ) -> None:
        self._boxes = boxes
        self._number = number
        self._can_take = can_take
        self._take = take
        self.is_on = False
        """May this worker hand over?"""

    def hand(self, worker: int, listener: str, fd: int, peer: object) -> bool:
        """See Neighbours."""
        if not self.is_on or not self._can_take(worker):
            return False
        try:
            socket.send_fds(self._boxes[worker][0], [json.dumps([listener, peer]).encode()], [fd])
        except OSError:  # its mailbox is full, or the system has too many on their way
            return False
        return True

    def is_idle(self) -> bool:
        """See Neighbours."""
        poll = select.poll()
        poll.register(self._boxes[self._number][1], select.POLLIN)
        return not poll.poll(0)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take what comes, and hand over what is too much."""
        loop.add_reader(self._boxes[self._number][1], self.receive)
        self.is_on = True

    def rest(self) -> None:
        """Hand nothing over any more: the worker is about to end, and so may be the others."""
        self.is_on = False

    def detach(self, loop: asyncio.AbstractEventLoop) -> None:
        """The worker ends; others know since `rest`."""
        self.rest()
        loop.remove_reader(self._boxes[self._number][1])
        while self.receive():
            pass

    def receive(self) -> int:
        """How many came, AT_ONCE at most."""
        for count in range(AT_ONCE):
            try:
                told, ancillary, _, _ = self._boxes[self._number][1].recvmsg(
                    MOST_BYTES, socket.CMSG_SPACE(array("i").itemsize), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return count
            for _, _, data in ancillary:
                connection = socket.socket(fileno=array("i", data)[0])
                connection.setblocking(False)
                name, peer = json.loads(told)
                if not self._take(name, connection, tuple(peer)):
                    connection.close()
        return AT_ONCE
