"""Which servers of a pool are measurably slower than the rest, so that their free slots are used last.

With slots, a request that finds one free begins at once, so what counts is how long the server takes and not how many
it has. Simulated with 16 servers of 4 slots, 4 of them at quarter speed, at load 0.7: 104 ms in the mean and 670 ms at
the 99th percentile where fast slots are filled first, 131 and 1,030 where each server gets the same number.

How sure is it? A server is slower if its mean service time, less twice its standard error, is above 1.5 times that of
the faster half of the pool; it stays so while the mean is above 1.25 times. A wrong verdict costs nothing but evenness,
as nobody waits while any slot is free. Times are weighted with exp(-age / 15 s). A server that gets no requests has
fewer and fewer that count, is unknown again below ten, and is then tried out by being treated like the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, fsum, sqrt
from typing import Final

from lbproxy.domain.server import NO_LIMIT, Server

TAU_S: Final = 15.0
ENOUGH: Final = 10.0
SLOWER: Final = 1.5
STILL_SLOWER: Final = 1.25
ERRORS: Final = 2.0


class _Record:
    """Weighted sums over the service times of one server: how many, of them, of their squares."""

    __slots__ = ("n", "squares", "total_s")

    def __init__(self) -> None:
        self.n = self.total_s = self.squares = 0.0

    def take(self, server: Server, keep: float) -> None:
        """Age what is there by `keep` and add what the server has noted since."""
        n, total_s, squares = server.take_served()
        self.n = self.n * keep + n
        self.total_s = self.total_s * keep + total_s
        self.squares = self.squares * keep + squares

    @property
    def mean_s(self) -> float:
        return self.total_s / self.n

    @property
    def least_s(self) -> float:
        """The mean less what chance may have added."""
        mean = self.mean_s
        return mean - ERRORS * sqrt(max(0.0, self.squares / self.n - mean * mean) / self.n)


class Speeds:
    """The verdicts of one pool. `slower`: servers whose free slots are used last."""

    __slots__ = ("_at", "_records", "slower")

    def __init__(self) -> None:
        self.slower: frozenset[Server] = frozenset()
        self._records: dict[Server, _Record] = {}
        self._at = 0.0

    def step(self, servers: Sequence[Server], now: float) -> bool:
        """Time passed: judge anew. True if a verdict changed. Servers without a limit are not judged.

        Where weights differ nobody is judged: the operator has said who shall get how much.
        """
        keep = exp(-max(0.0, now - self._at) / TAU_S)
        self._at = now
        limited = [server for server in servers if server.limit != NO_LIMIT]
        self._records = {server: self._records.get(server) or _Record() for server in limited}
        for server, record in self._records.items():
            record.take(server, keep)
        before = self.slower
        is_even = len({server.weight for server in servers}) <= 1
        self.slower = self._judge() if is_even else frozenset()
        return self.slower != before

    def _judge(self) -> frozenset[Server]:
        known = sorted(
            ((record.mean_s, server.key, server) for server, record in self._records.items() if record.n >= ENOUGH),
            key=lambda item: item[:2],
        )
        if len(known) < 2:
            return frozenset()
        half = [self._records[server] for _, _, server in known[: (len(known) + 1) // 2]]
        usual_s = fsum(record.total_s for record in half) / sum(record.n for record in half)
        return frozenset(
            server
            for mean_s, _, server in known
            if self._records[server].least_s > SLOWER * usual_s
            or (server in self.slower and mean_s > STILL_SLOWER * usual_s)
        )

    def prefer(self, servers: Sequence[Server]) -> tuple[Server, ...]:
        """Those that are not slower; all if there is no other."""
        slower = self.slower
        if not slower:
            return tuple(servers)
        return tuple(server for server in servers if server not in slower) or tuple(servers)
