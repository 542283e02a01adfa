"""Where the shared books of one pool stand: the only place that knows which cell is which.

    header    the words below, once, and WORKER_WORDS for each worker
    counts    for each seat: how many rows are about it, then how many requests each worker has there without one
    servers   for each seat: SERVER_WORDS words, then how many probes each worker has there, then whether each may still
              say something about it
    cards     for each seat: who sits there (domain/shared/seats.py)
    mail      for each worker: the first and the last row that were granted to it and that it has not taken up
    rows      leases: who has a slot at which server
    places    the line: who waits
    flows     the keys that wait, where turns go by key and class (domain/shared/turns.py)
    buckets   where the flow of a key is found

Servers are known by their seats, from 0 on. Two things are the truth: the first cell of each row, and the first cell of
each place. Each is written last when the thing comes to be, and first when it ends, in one step. So are a worker's
requests without a row, its probes, and the first word of a seat. Everything else follows from them and can be made anew
(domain/shared/repair.py), which is done when somebody died while at it.

Rows and places are known by their number, from 1 on; 0 is none. A plan of cells that are all 0 is of empty books.
"""

from __future__ import annotations

from typing import Final

from lbproxy.compiling import i64
from lbproxy.domain.breaker import WORDS

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
SEATED: Final = 17  # how many servers were ever given a seat
N_KEYS: Final = 18  # how many keys wait, each once, in however many classes
FREE_FLOW: Final = 19
N_FLOWS_USED: Final = 20
CLASSES: Final = 24  # words of each class, those below

MOST_CLASSES: Final = 6
CLASS_N: Final = 0  # how many of it wait
CLASS_CREDIT: Final = 1
CLASS_FIRST: Final = 2  # its ring: the flow whose turn is next, and the one whose turn is last
CLASS_LAST: Final = 3
CLASS_LONG: Final = 4  # a flow that had more tickets than others when it got its last one
CLASS_WORDS: Final = 5
HEADER_WORDS: Final = CLASSES + MOST_CLASSES * CLASS_WORDS

# Words of a worker; the first three: domain/shared/budget.py.
RETRYING: Final = 0  # retries that it has in progress
RETRIED: Final = 1  # those that it and those before it ever began
REQUESTED: Final = 2  # requests that it and those before it ever ended; as of its last look
USES_POOL: Final = 3  # it may still be at these books
CROWDED: Final = 4  # the first of its places that were given to others, which it does not know yet
WORKER_WORDS: Final = 5

# Words of a server.
SEAT: Final = 0  # its number among all that ever had a seat; below 0: it leaves, or has left; 0: nobody sat here yet
ADMIN: Final = 1  # what the controller says: domain/shared/orders.py
HEALTH: Final = 2
WEIGHT: Final = 3
MAX_INFLIGHT: Final = 4
IDLE: Final = 5
REUSE: Final = 6
ROLE: Final = 7  # a backup? in another zone?
CUT_AT: Final = 8
WAS_UP: Final = 9
JUDGED: Final = 10  # goes up with each write of what follows: domain/shared/verdicts.py
ERRORS_IN_A_ROW: Final = 11
PENALTY_UNTIL: Final = 12
PENALTY_IS_FIRM: Final = 13
CIRCUIT: Final = 14
WHAT: Final = CIRCUIT + WORDS  # what its breaker has seen, for people
WHAT_WORDS: Final = 16
SERVER_WORDS: Final = WHAT + WHAT_WORDS
CARD_WORDS: Final = 128  # who sits there

MAIL_WORDS: Final = 2  # for each worker

# Words of a row: see `packed`; the ticket that it was granted to; since when (monotonic, ns); the next of its list.
ROW_TICKET: Final = 1
ROW_SINCE: Final = 2
ROW_NEXT: Final = 3
ROW_WORDS: Final = 4

# Words of a place: the worker + 1; its number for the ticket; arrival and last moment (monotonic, ns); its rank, and of
# those that have the same the earlier goes first; its neighbours in the line (a free one: the next free one); its class
# + 1, 0 if it has no turns, and what stands for its key; its flow, and its neighbours there, which follow from these.
PLACE_TICKET: Final = 1
PLACE_ARRIVED: Final = 2
PLACE_EXPIRES: Final = 3  # 0: it was given to somebody else, and its ticket does not know yet
PLACE_SERIAL: Final = 4
PLACE_BEFORE: Final = 5
PLACE_NEXT: Final = 6
PLACE_RANK: Final = 7
PLACE_KEY: Final = 8
PLACE_FLOW: Final = 9
PLACE_OLDER: Final = 10
PLACE_NEWER: Final = 11
PLACE_WORDS: Final = 12

# Words of a flow: what stands for its key; its class; how many places it has, the oldest and the newest; its neighbours
# in the ring of its class (a free one: the next free one); the next one of its bucket.
FLOW_KEY: Final = 0
FLOW_RANK: Final = 1
FLOW_N: Final = 2
FLOW_OLDEST: Final = 3
FLOW_NEWEST: Final = 4
FLOW_BEFORE: Final = 5
FLOW_NEXT: Final = 6
FLOW_CHAIN: Final = 7
FLOW_WORDS: Final = 8

# What a row is.
HELD: Final = 1  # a request has the slot
GRANTED: Final = 2  # it is for a ticket of another worker, which has not taken it up yet

_MAX_WORKERS: Final = 1 << 12
_MAX_SERVERS: Final = 1 << 24


class Plan:
    """first: the first cell, end: the first behind it. n_rows: leases under a limit, of all servers and workers;
    n_places: tickets that wait, of all workers. n_workers: 1 to 4095. n_servers: seats, for those of the pool and those
    that may join.

    count_words, server_words: of each seat, among the counts and among the servers."""

    __slots__ = (
        "buckets",
        "cards",
        "count_words",
        "counts",
        "end",
        "first",
        "flows",
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
        self.first: i64 = first
        self.n_workers: i64 = n_workers
        self.n_servers: i64 = n_servers
        self.n_rows: i64 = n_rows
        self.n_places: i64 = n_places
        self.count_words: i64 = 1 + n_workers
        self.server_words: i64 = SERVER_WORDS + 2 * n_workers
        self.counts: i64 = first + HEADER_WORDS + WORKER_WORDS * n_workers
        self.servers: i64 = self.counts + n_servers * self.count_words
        self.cards: i64 = self.servers + n_servers * self.server_words
        self.mail: i64 = self.cards + n_servers * CARD_WORDS
        self.rows: i64 = self.mail + MAIL_WORDS * n_workers
        self.places: i64 = self.rows + ROW_WORDS * n_rows
        self.flows: i64 = self.places + PLACE_WORDS * n_places
        self.buckets: i64 = self.flows + FLOW_WORDS * n_places
        self.end: i64 = self.buckets + n_places

    def worker(self, number: i64) -> i64:
        """The first word of a worker."""
        return self.first + HEADER_WORDS + number * WORKER_WORDS

    def count(self, seat: i64) -> i64:
        """How many rows are about a server; what stands behind it: see the module."""
        return self.counts + seat * self.count_words

    def loose(self, seat: i64, worker: i64) -> i64:
        """How many requests a worker has at a server without a row."""
        return self.counts + seat * self.count_words + 1 + worker

    def server(self, seat: i64) -> i64:
        """The first word of a server."""
        return self.servers + seat * self.server_words

    def permits(self, seat: i64) -> i64:
        """The first of the words that say how many probes each worker has at a server."""
        return self.servers + seat * self.server_words + SERVER_WORDS

    def uses(self, seat: i64) -> i64:
        """The first of the words that say which workers may still say something about a server: not 0."""
        return self.permits(seat) + self.n_workers

    def card(self, seat: i64) -> i64:
        """The first of the words that say who sits there."""
        return self.cards + seat * CARD_WORDS

    def row(self, number: i64) -> i64:
        """The first word of a row, 1 and up."""
        return self.rows + (number - 1) * ROW_WORDS

    def place(self, number: i64) -> i64:
        """The first word of a place, 1 and up."""
        return self.places + (number - 1) * PLACE_WORDS

    def class_at(self, rank: i64) -> i64:
        """The first word of a class, 0 and up."""
        return self.first + CLASSES + rank * CLASS_WORDS

    def flow(self, number: i64) -> i64:
        """The first word of a flow, 1 and up."""
        return self.flows + (number - 1) * FLOW_WORDS

    def bucket(self, key: i64) -> i64:
        """The word that names the first flow of those among which a key is found."""
        return self.buckets + key % self.n_places


def packed(state: i64, worker: i64, server: i64) -> i64:
    """The first word of a row that is in use."""
    return state | worker << 2 | server << 14


def state_of(word: i64) -> i64:
    """HELD, GRANTED or 0."""
    return word & 3


def worker_of(word: i64) -> i64:
    return word >> 2 & 0xFFF


def server_of(word: i64) -> i64:
    return word >> 14
