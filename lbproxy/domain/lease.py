"""A lease: the right to have one request at a server, and what its end says about the server."""

from __future__ import annotations

import enum
from typing import Final

from lbproxy.compiling import mypyc_attr
from lbproxy.domain.books import Books
from lbproxy.domain.server import NO_LIMIT, Server


class Outcome(enum.Enum):
    """How an attempt ended, as far as its server is concerned."""

    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"  # a 5xx that is not the breaker's business: by the server's or by the request's fault
    BAD_ANSWER = "bad_answer"  # an answer that cannot be used: by the server's or by the request's fault
    NEUTRAL = "neutral"  # lbproxy itself failed, or the attempt was not made: says nothing about the server
    PUSH_BACK = "push_back"  # 429, or 503 with Retry-After: the server asks for less; never the breaker's business
    ABORTED = "aborted"  # the client left or a time-out struck: the server may still be at work


class Refusal(enum.Enum):
    """Why there is no lease."""

    NO_SERVER = "no_server"
    FULL = "full"  # all usable servers are at their limit: the caller may enqueue


_SUCCESS: Final = Outcome.SUCCESS


class Lessor:
    """Who gives leases and hears of their end: the pool."""

    __slots__ = ("books",)

    def __init__(self, books: Books) -> None:
        self.books = books

    def judge(self, lease: Lease, ok: bool, now: float) -> None:
        """An answer that the server's breaker must hear of."""
        raise NotImplementedError

    def settle(
        self,
        lease: Lease,
        outcome: Outcome,
        now: float,
        penalty_s: float,
        quarantine_s: float,
        what: str,
        request_key: int,
    ) -> None:
        """A lease did not end in success; the arguments are those of `Lease.release`."""
        raise NotImplementedError

    def hand_over(self, now: float) -> None:
        """A slot is free, and somebody waits."""
        raise NotImplementedError


@mypyc_attr(free_list_len=1)
class Lease:
    """The right to have one request at a server.

    generation: of the server's breaker when the request was given to it; later ones do not believe its outcome.
    is_out: not released yet.
    """

    __slots__ = ("_lessor", "generation", "is_out", "server", "started_at")

    def __init__(self, lessor: Lessor, server: Server, now: float) -> None:
        self._lessor = lessor
        self.server = server
        self.started_at = now
        self.is_out = True
        lessor.books.began(server)
        circuit = server.circuit
        self.generation = circuit.generation if circuit is not None else 0

    def release(
        self,
        outcome: Outcome,
        now: float,
        *,
        penalty_s: float = 0.0,
        quarantine_s: float = 0.0,
        what: str = "failures",
        is_timed: bool = True,
        request_key: int = 0,
    ) -> None:
        """Give the slot back and feed the result to the server's records; the head of the queue gets the slot.

        penalty_s: for FAILURE and PUSH_BACK, what the server's Retry-After said, else 0 for the usual 5 s. For ERROR,
        above 0 if it is one already, and not only after several on end.
        quarantine_s: for ABORTED, and FAILURE by a time-out, at most how long the slot is used last (the response_head
        time-out). what: for FAILURE, the failure as a noun in the plural ("connect failures"), shown to people.
        is_timed: the time since the start is what the server needed, which is not so for TCP connections and tunnels.
        request_key: for ERROR and BAD_ANSWER, a number for the sort of request: one client and one path, one number.
        Raises RuntimeError the second time.
        """
        if not self.is_out:
            raise RuntimeError(f"the lease on {self.server.name} was released twice")
        self.is_out = False
        server = self.server
        lessor = self._lessor
        books = lessor.books
        books.ended(server)
        if outcome is _SUCCESS:
            server.progress_at = now
            server.observe_latency(now - self.started_at, now)
            circuit = server.circuit
            if circuit is not None:
                # The usual case of CircuitBreaker.observe, without the call.
                if self.generation == circuit.generation and now < circuit.bucket_ends_at:
                    circuit.in_a_row = 0
                    circuit.n_ok += 1
                else:
                    lessor.judge(self, True, now)
            if server.errors_in_a_row:
                server.errors_in_a_row = 0
            if server.penalty_until:
                server.forgive(now)
            if server.limit != NO_LIMIT:
                if is_timed:
                    server.observe_service(now - self.started_at)
                    server.note_served(now - self.started_at)
                if server.n_quarantined:
                    server.end_quarantine(now, newest_start=self.started_at)
        else:
            lessor.settle(self, outcome, now, penalty_s, quarantine_s, what, request_key)
        if books.n_waiting:
            lessor.hand_over(now)
