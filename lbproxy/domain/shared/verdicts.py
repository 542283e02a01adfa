"""What ends of requests say about servers, over all workers: breakers, errors on end, penalties.

Whoever judges a server does so inside the guard, with what all workers know: reads it, judges, writes it. The others
see at their next request that somebody did. Good answers are counted where they are, since there are many of them, and
added to the whole when the worker judges next or sweeps. So rates lag by a sweep, and so does the end of a row of
failures that another worker's good answer brings.

Of probes each worker has its own number, so that those of a dead one are known.
"""

from __future__ import annotations

from lbproxy.domain.breaker import WORDS
from lbproxy.domain.members import Members
from lbproxy.domain.server import Server
from lbproxy.domain.shared.books import SharedBooks
from lbproxy.domain.shared.plan import (
    CIRCUIT,
    ERRORS_IN_A_ROW,
    JUDGED,
    PENALTY_IS_FIRM,
    PENALTY_UNTIL,
    VERDICTS,
    WHAT,
    WHAT_WORDS,
)
from lbproxy.domain.states import Breaker


class _Known:
    """What this worker took over from the books about a server, and when that was written."""

    __slots__ = ("generation", "judged", "n_ok", "penalty_until", "permits")

    def __init__(self) -> None:
        self.generation = 0
        self.judged = 0
        self.n_ok = 0
        self.penalty_until = 0.0
        self.permits = 0


class Verdicts:
    """The verdicts of one pool, as one worker knows them. To be called inside the guard only, but for `is_stale`."""

    __slots__ = ("_books", "_known", "_members", "_seen")

    def __init__(self, books: SharedBooks, members: Members) -> None:
        self._books = books
        self._members = members
        self._known: dict[Server, _Known] = {}
        self._seen = 0

    def is_stale(self) -> bool:
        """Has somebody judged a server?"""
        return self._books.word(VERDICTS) != self._seen

    def read(self, now: float) -> None:
        """Know of all servers what the workers know together."""
        self._seen = self._books.word(VERDICTS)
        for server in self._books.seats:
            self._read(server, now)

    def _read(self, server: Server, now: float) -> None:
        books = self._books
        known = self._known.setdefault(server, _Known())
        judged = books.server_word(server, JUDGED)
        if judged == known.judged:
            return  # there is nothing new; what this worker counted since is on top of what it knows
        known.judged = judged
        circuit = server.circuit
        n_ok = 0
        if circuit is not None:
            n_ok = max(0, circuit.n_ok - known.n_ok) if circuit.state is Breaker.CLOSED else 0
            generation, permits = circuit.generation, books.permits(server)
            words = [books.server_word(server, CIRCUIT + number) for number in range(WORDS)]
            circuit.take_words(words, sum(permits))
            if circuit.generation != generation:
                circuit.what = books.server_text(server, WHAT, WHAT_WORDS)
            known.permits = circuit.permits
            known.n_ok = circuit.n_ok
            known.generation = circuit.generation
            if n_ok and generation == circuit.generation:
                circuit.n_ok += n_ok
                circuit.in_a_row = 0
            self._follow(server, circuit.state, now)
        server.errors_in_a_row = 0 if n_ok else books.server_word(server, ERRORS_IN_A_ROW)
        until_ns = books.server_word(server, PENALTY_UNTIL)
        until = until_ns / 1e9
        if until != known.penalty_until or server.penalty_until > until:
            server.take_penalty(until, is_firm=books.server_word(server, PENALTY_IS_FIRM) != 0)
        known.penalty_until = until

    def _follow(self, server: Server, state: Breaker, now: float) -> None:
        circuit = server.circuit
        if circuit is None or state is server.breaker:
            return
        old = server.shown
        if state is Breaker.EJECTED:
            self._members.ejected(server, old, circuit.what, now)
        elif state is Breaker.CLOSED:
            self._members.closed(server, old, "a probe succeeded", now)
        else:
            if server.breaker is Breaker.CLOSED:  # it had no request while the server was out
                self._members.ejected(server, old, circuit.what, now)
                old = server.shown
            server.breaker = Breaker.PROBING
            self._members.changed(server, old, circuit.what, now)

    def write(self, server: Server, *, is_news: bool = True) -> None:
        """Let the others know what this worker knows now of a server. is_news: they should look at their next request,
        and not when they judge or sweep."""
        books = self._books
        if server not in books.seats:
            return
        known = self._known.setdefault(server, _Known())
        circuit = server.circuit
        if circuit is not None:
            permits = books.permits(server)
            if circuit.permits == 0:
                permits = [0] * len(permits)
            else:
                permits[books.worker] += circuit.permits - known.permits
            books.set_permits(server, permits)
            for number, word in enumerate(circuit.to_words(), CIRCUIT):
                books.set_server_word(server, number, word)
            if is_news:
                books.set_server_text(server, WHAT, WHAT_WORDS, circuit.what)
            known.permits = circuit.permits
            known.n_ok = circuit.n_ok
            known.generation = circuit.generation
        books.set_server_word(server, ERRORS_IN_A_ROW, server.errors_in_a_row)
        books.set_server_word(server, PENALTY_UNTIL, int(server.penalty_until * 1e9))
        books.set_server_word(server, PENALTY_IS_FIRM, int(server.penalty_is_firm))
        known.penalty_until = int(server.penalty_until * 1e9) / 1e9
        known.judged = books.server_word(server, JUDGED) + 1
        books.set_server_word(server, JUDGED, known.judged)
        if is_news:
            self._seen = books.word(VERDICTS) + 1
            books.set_word(VERDICTS, self._seen)

    def publish(self) -> None:
        """Let the others know of good answers, penalties that they shortened, and what time brought."""
        for server in self._books.seats:
            known, circuit = self._known.setdefault(server, _Known()), server.circuit
            is_news = circuit is not None and circuit.generation != known.generation
            is_better = circuit is not None and circuit.n_ok != known.n_ok
            if is_news or is_better or server.penalty_until < known.penalty_until:
                self.write(server, is_news=is_news)
