"""Where the shared books of one pool stand: the only place that knows which cell is which.

    header    the words below, once
    servers   for each server: SERVER_WORDS words, then for each worker how many requests it has there without a row,
              then for each how many probes it has there
    mail      for each worker: the first and the last row that were granted to it and that it has not taken up
    rows      leases: who has a slot at which server
    places    the line: who waits

Two things are the truth: the first cell of each row, and the first cell of each place. Each is written last when the
thing comes to be, and first when it ends, in one step. So are a worker's requests without a row, and its
probes. Everything else follows
from them and can be made anew (domain/shared/repair.py), which is done when somebody died while at it.

Rows and places are known by their number, from 1 on; 0 is none. A plan of cells that are all 0 is of empty books.
"""

from __future__ import annotations

from typing import Final

from lbproxy.domain.breaker import WORDS
from lbproxy.domain.shared.cells import Cells

# Words of the header.
N_WAITING: Final = 0  # how many places are in the line
FIRST: Final = 1  # the oldest and the newest of them
LAST: Final = 2
FREE_PLACE: Final = 3  # the first of those that were used and are free
N_PLACES_USED: Final = 4  # places above this number were never used
SERIAL: Final = 5  # of the last that joined the line
FREE_ROW: Final = 6
N_ROWS_USED: Final = 7
OWNER: Final = 8  # who is at the books, or was last, as worker + 1; 0: nobody, or who clears up
LEFT_AT: Final = 9  # the order of the queue and the rate at which it drains: see WaitQueue
ABOVE_SINCE: Final = 10
IS_NEWEST_FIRST: Final = 11
N_DRAINED: Final = 12
RATE_FROM: Final = 13
RATE: Final = 14
CHANGED: Final = 15  # goes up when the controller has written a word of a server
VERDICTS: Final = 16  # goes up when a server was judged, so that its state or its penalty may be another
HEADER_WORDS: Final = 24

# Words of a server.
TOTAL: Final = 0  # requests that it has, of all workers
ADMIN: Final = 1  # what the controller says: domain/shared/orders.py
HEALTH: Final = 2
WEIGHT: Final = 3
MAX_INFLIGHT: Final = 4
IDLE: Final = 5
JUDGED: Final = 6  # goes up with each write of what follows: domain/shared/verdicts.py
ERRORS_IN_A_ROW: Final = 7
PENALTY_UNTIL: Final = 8
PENALTY_IS_FIRM: Final = 9
CIRCUIT: Final = 10
SERVER_WORDS: Final = CIRCUIT + WORDS

MAIL_WORDS: Final = 2  # for each worker

# Words of a row: see `packed`; the ticket that it was granted to; since when (monotonic, ns); the next of its list.
ROW_TICKET: Final = 1
ROW_SINCE: Final = 2
ROW_NEXT: Final = 3
ROW_WORDS: Final = 4

# Words of a place: the worker + 1; its number for the ticket; arrival and last moment (monotonic, ns); its rank, and of
# those that have the same the earlier goes first; its neighbours in the line (a free one: the next free one).
PLACE_TICKET: Final = 1
PLACE_ARRIVED: Final = 2
PLACE_EXPIRES: Final = 3
PLACE_SERIAL: Final = 4
PLACE_BEFORE: Final = 5
PLACE_NEXT: Final = 6
PLACE_WORDS: Final = 8

# What a row is.
HELD: Final = 1  # a request has the slot
GRANTED: Final = 2  # it is for a ticket of another worker, which has not taken it up yet

_MAX_WORKERS: Final = 1 << 12
_MAX_SERVERS: Final = 1 << 24


class Plan:
    """first: the first cell, end: the first behind it. n_rows: leases under a limit, of all servers and workers;
    n_places: tickets that wait, of all workers. n_workers: 1 to 4095. n_servers: those of the pool, and room for those
    that may join."""

    __slots__ = (
        "end",
        "first",
        "mail",
        "n_places",
        "n_rows",
        "n_servers",
        "n_workers",
        "places",
        "rows",
        "server_words",
        "servers",
    )

    def __init__(self, first: int, *, n_workers: int, n_servers: int, n_rows: int, n_places: int) -> None:
        if not 0 < n_workers < _MAX_WORKERS or not 0 <= n_servers < _MAX_SERVERS or n_rows < 0 or n_places < 0:
            raise ValueError(f"no plan for {n_workers} workers, {n_servers} servers, {n_rows} rows, {n_places} places")
        self.first = first
        self.n_workers = n_workers
        self.n_servers = n_servers
        self.n_rows = n_rows
        self.n_places = n_places
        self.servers = first + HEADER_WORDS
        self.server_words = SERVER_WORDS + 2 * n_workers
        self.mail = self.servers + n_servers * self.server_words
        self.rows = self.mail + MAIL_WORDS * n_workers
        self.places = self.rows + ROW_WORDS * n_rows
        self.end = self.places + PLACE_WORDS * n_places

    def server(self, number: int) -> int:
        """The first word of a server."""
        return self.servers + number * self.server_words

    def permits(self, number: int) -> int:
        """The first of the words that say how many probes each worker has at a server."""
        return self.server(number) + SERVER_WORDS + self.n_workers

    def row(self, number: int) -> int:
        """The first word of a row, 1 and up."""
        return self.rows + (number - 1) * ROW_WORDS

    def place(self, number: int) -> int:
        """The first word of a place, 1 and up."""
        return self.places + (number - 1) * PLACE_WORDS


def carry(old: Cells, old_plan: Plan, new: Cells, new_plan: Plan) -> None:
    """Write what stands in the books into other memory, by a plan for as many workers and as much room at least. Seats,
    rows and places keep their numbers. Nobody else may be at either of them, nor use the old ones afterwards."""
    for there, here, n_words in (
        (old_plan.first, new_plan.first, HEADER_WORDS),
        (old_plan.servers, new_plan.servers, old_plan.n_servers * old_plan.server_words),
        (old_plan.mail, new_plan.mail, MAIL_WORDS * old_plan.n_workers),
        (old_plan.rows, new_plan.rows, ROW_WORDS * old_plan.n_rows),
        (old_plan.places, new_plan.places, PLACE_WORDS * old_plan.n_places),
    ):
        for number in range(n_words):
            new[here + number] = old[there + number]


def packed(state: int, worker: int, server: int) -> int:
    """The first word of a row that is in use."""
    return state | worker << 2 | server << 14


def state_of(word: int) -> int:
    """HELD, GRANTED or 0."""
    return word & 3


def worker_of(word: int) -> int:
    return word >> 2 & 0xFFF


def server_of(word: int) -> int:
    return word >> 14
