"""Where a request belongs: its key in the body, and the server that its sticky cookie names.

Only requests to pools that ask for either have one of these. A key in the body is looked for before there is a server:
the request is kept meanwhile as one that waits for a connection is, and goes on when the key is there, or can't be.
"""

from __future__ import annotations

from typing import Final

from lbproxy.compiling import mypyc_attr
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.runtime import PoolRuntime
from lbproxy.domain.server import Server
from lbproxy.domain.sticky import Sticky
from lbproxy.protocol.json_value import JsonValue
from lbproxy.telemetry.slots import POOL

STICKY_KEPT: Final = POOL.column("sticky_requests_total", "kept")
STICKY_NEW: Final = POOL.column("sticky_requests_total", "new")
STICKY_MOVED: Final = POOL.column("sticky_requests_total", "moved")
STICKY_SPILLED: Final = POOL.column("sticky_requests_total", "spilled")


@mypyc_attr(free_list_len=1, acyclic=True)
class Affinity:
    """key: of the body, b"" if it has none. search: looks for it, None if there is nothing (more) to look for.

    server: whom the client's cookie names. stays: its cookie is not to be replaced, although the server had no slot for
    this request. has_waited: for that server, or tried to.
    """

    __slots__ = ("has_waited", "is_counted", "is_due", "key", "search", "server", "stays", "sticky")

    def __init__(self, pool: PoolRuntime, prepared: Prepared, wall: float) -> None:
        self.key = b""
        self.search: JsonValue | None = None
        self.sticky: Sticky | None = pool.sticky
        self.server: Server | None = None
        self.is_due = False
        self.stays = self.has_waited = self.is_counted = False
        key = pool.pool.picker.key
        head = prepared.head
        if key is not None and key.pointer is not None and head.has_body:
            self.search = JsonValue(key.pointer)
        sticky = self.sticky
        if sticky is not None and sticky.name in head.lines:
            self.server, self.is_due = sticky.find(head.headers.get("cookie", ""), wall)

    def read(self, data: bytes, *, is_done: bool) -> bool:
        """More of the body. True if the search is over."""
        search = self.search
        if search is None:
            return True
        if search.feed(data, is_last=is_done):
            self.key = search.value
            self.search = None
        return self.search is None

    def give_up(self) -> None:
        """Look no further: the request has no key."""
        self.search = None

    def count(self, pool: PoolRuntime, column: int) -> None:
        """What came of the cookie; once for a request, however often it is placed."""
        if not self.is_counted:
            self.is_counted = True
            pool.row[column] += 1

    def cookie_line(self, server: Server, status: int, wall: float, *, is_secure: bool) -> bytes:
        """The field line that binds the client to the server that has answered it; b"" if nothing is to be said.

        An error of a server (5xx) binds nobody to it.
        """
        sticky = self.sticky
        if sticky is None or self.stays or status >= 500 or (server is self.server and not self.is_due):
            return b""
        return sticky.line(server, wall, is_secure=is_secure)
