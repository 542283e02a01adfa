"""Which route takes a request whose head does not say it: by what its JSON body holds, by a key, or by chance.

Only requests that some such route may take have one of these; the body of any other is not looked at. What came of the
body is kept meanwhile, as that of a request which waits for a connection is, and the request goes on, streaming, as
soon as it is known where. At most LIMIT bytes are looked at. A route is chosen once: a retry goes by the same one.

Conditions are searched for exactly (protocol/json_value.py): what any parser of the whole body could find otherwise is
not found at all, and the next route has its turn.
"""

from __future__ import annotations

from lbproxy.compiling import mypyc_attr
from lbproxy.dataplane.exchange.body_tape import BodyTape
from lbproxy.dataplane.exchange.prepared import Fork, Prepared
from lbproxy.dataplane.runtime import RouteRuntime
from lbproxy.domain.keys import key_of
from lbproxy.domain.splitting import Split
from lbproxy.domain.strategies.hashing import client_key
from lbproxy.protocol.json_value import JsonValue


@mypyc_attr(free_list_len=1, acyclic=True)
class Choosing:
    """See the module. client: the address of whose request it is. at: which of the fork's routes is being asked, or
    takes the request."""

    __slots__ = ("_client", "_fork", "_is_routed", "_key_search", "_searches", "at")

    def __init__(self, fork: Fork, client: str) -> None:
        self._fork = fork
        self._client = client
        self.at = 0
        self._is_routed = False
        self._key_search: JsonValue | None = None
        self._searches: list[JsonValue | None] = [None] * len(fork.listener.pointers)
        for route in fork.routes:
            for number, _ in route.conditions:
                if self._searches[number] is None:
                    self._searches[number] = JsonValue(fork.listener.pointers[number], is_exact=True)

    def read(self, tape: BodyTape, data: bytes, *, is_done: bool) -> Prepared | None:
        """More of the body: `data`, which `tape` has too. What happens to the request; None while that is not known."""
        if not self.advance(tape, data, is_done=is_done):
            return None
        return self._fork.prepared(self.at, self._branch(self._fork.routes[self.at]))

    def advance(self, tape: BodyTape | None, data: bytes, *, is_done: bool) -> bool:
        """The same; are `at` and `key` known now? tape None: `data` is all of it."""
        key_search = self._key_search
        if self._is_routed:
            if key_search is not None:
                key_search.feed(data, is_last=is_done)
        else:
            for search in self._searches:
                if search is not None:
                    search.feed(data, is_last=is_done)
            if not self._find_route():
                return False
            self._is_routed = True
            split = self._fork.routes[self.at].split
            if split is not None and split.key is not None and split.key.pointer is not None:
                key_search = self._key_search = JsonValue(split.key.pointer)
                has_body = self._fork.head.has_body
                so_far = data if tape is None else tape.content()
                key_search.feed(so_far if has_body else b"", is_last=is_done or not has_body)
        return key_search is None or key_search.is_done

    def _find_route(self) -> bool:
        """Go on to the route that takes it. False: more of the body must come."""
        last = len(self._fork.routes) - 1
        while self.at < last:
            is_open = False
            fails = False
            for number, pattern in self._fork.routes[self.at].conditions:
                search = self._searches[number]
                if search is None or not search.is_done:
                    is_open = True
                elif not search.value or not pattern.matches(search.value):
                    fails = True
                    break
            if not fails:
                return not is_open
            self.at += 1
        return True

    def _branch(self, route: RouteRuntime) -> int:
        split = route.split
        if split is None:
            return 0
        pool = route.branches[0].pool
        return split.pick(self.key(split), pool.rng.random() if pool is not None else 0.0)

    def key(self, split: Split) -> bytes:
        """What the request goes by in this split; b"" for chance."""
        key = split.key
        if key is None:
            return b""
        if self._key_search is not None:
            return self._key_search.value
        return client_key(self._client) if key.kind == "client_ip" else key_of(key, self._fork.head)
