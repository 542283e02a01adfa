"""Who waits for one server and no other, since its client sticks to it. Each server has a line, in order of arrival.

They count among those who wait in the pool, so all of them together are no more than its queue may have.
"""

from __future__ import annotations

from collections import deque

from lbproxy.domain.queue import Ticket, WaitQueue
from lbproxy.domain.server import Server


class KeptLine:
    """See the module. A ticket that left is passed over."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines: dict[Server, deque[Ticket]] = {}

    @property
    def is_empty(self) -> bool:
        return not self._lines

    def servers(self) -> list[Server]:
        """Those that somebody waits for, or did."""
        return list(self._lines)

    def push(self, server: Server, ticket: Ticket, queue: WaitQueue) -> bool:
        """Wait for this server until `ticket.expires_at`. False if too many wait already."""
        if len(queue) >= queue.size:
            return False
        ticket.is_waiting = True
        queue.books.joined()
        self._lines.setdefault(server, deque()).append(ticket)
        return True

    def first(self, server: Server) -> Ticket | None:
        """Whose turn it is when this server has a slot."""
        line = self._lines.get(server)
        while line:
            if line[0].is_waiting:
                return line[0]
            line.popleft()
        self._lines.pop(server, None)
        return None

    def take(self, server: Server, queue: WaitQueue) -> None:
        """The first one waits no more."""
        ticket = self._lines[server].popleft()
        ticket.is_waiting = False
        queue.books.left()

    def late(self, now: float, queue: WaitQueue) -> list[Ticket]:
        """Who has waited in vain; they are out of the line."""
        found: list[Ticket] = []
        for server, line in list(self._lines.items()):
            kept: deque[Ticket] = deque()
            for ticket in line:
                if not ticket.is_waiting:
                    continue
                if ticket.expires_at > now:
                    kept.append(ticket)
                    continue
                ticket.is_waiting = False
                queue.books.left()
                found.append(ticket)
            if kept:
                self._lines[server] = kept
            else:
                del self._lines[server]
        return found
