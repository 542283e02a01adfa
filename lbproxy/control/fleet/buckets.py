"""Rate limits of a fleet: buckets in Redis, asked for in batches, and what a process may decide of them by itself.

    tokens in hand         some were taken in advance for a key that many ask for         -> it passes, nobody is asked
    known to be empty      Redis has said when there will be a token again                -> refused, nobody is asked
    else                   the key joins the next batch: one call of a script for all     -> as that says
    Redis is late          it passes, and is counted; its token is owed, and is what the next ones are asked for first
    Redis is away          it passes, and is counted

The local limit of the same rate comes before all of that (dataplane/exchange/admission.py), so what passes for want of
an answer is still no more than the rate, from each lbproxy.

What is owed. A time-out of milliseconds is missed by any machine that is busy for a moment, and without debts each of
those moments would be a hole in the limit. With them what passes too early is missing later: over some seconds the
limit holds, however often Redis is late. A debt is forgotten when the bucket would have been full by now, and when
Redis was away: it may have begun anew, and to refuse for a minute what passed in a minute would make two failures of
one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Final, Protocol

from lbproxy.dataplane.guard import Fleet, Limit
from lbproxy.telemetry.slots import LIMIT

MOST_KEYS: Final = 16_384  # of which something is known; about 0.5 KiB each
MOST_KEY: Final = 64  # bytes: of a longer one, which strangers may send, a hash stands for it
MOST_IN_BATCH: Final = 512  # keys: Redis does nothing else meanwhile
HAND_S: Final = 0.1
"""So long tokens may be kept that were taken in advance; those that are left then are lost."""
ADVANCE_S: Final = 0.05  # as many at most as the rate gives in so long,
ADVANCE_SHARE: Final = 20  # or as a 20th of the burst, whichever is less
_OPEN: Final = LIMIT.column("rate_limit_open_total")

Told = Callable[[int], None]


class Known:
    """What is known of a bucket. name: in Redis. in_hand: tokens that were taken in advance, good until `hand_until`.
    empty_until: monotonic seconds. told: who waits for the next batch; asking: for the one that is with Redis, which is
    to give `wanted` tokens. n_taken: requests since it was asked for last, which was at `asked_at`. owed: tokens of
    requests that passed without one, `burst` at most, the last of them at `owed_at`."""

    __slots__ = (
        "asked_at",
        "asking",
        "empty_until",
        "hand_until",
        "in_hand",
        "limit",
        "most_in_advance",
        "n_taken",
        "name",
        "owed",
        "owed_at",
        "told",
        "wanted",
    )

    def __init__(self, limit: Limit, key: bytes) -> None:
        self.limit = limit
        self.name = limit.shared_name(key)
        self.in_hand = self.n_taken = self.wanted = self.owed = 0
        self.hand_until = self.empty_until = self.asked_at = self.owed_at = 0.0
        self.told: list[Told] = []
        self.asking: list[Told] = []
        self.most_in_advance = min(limit.burst // ADVANCE_SHARE, int(ADVANCE_S * 1e9 / int(limit.interval)))

    def owe(self, count: int, now: float) -> None:
        """So many passed without a token, which Redis will be asked for."""
        self.owed = min(self.owed + count, self.limit.burst)
        self.owed_at = now

    def want(self, now: float, up_at: float) -> None:
        """It is asked for now: for what is owed, for who waits, and for as many more as came lately. up_at: since when
        there is this Redis."""
        lately = self.n_taken if now - self.asked_at < HAND_S else 0
        self.asking, self.told = self.told, []
        if self.owed and (self.owed_at < up_at or now - self.owed_at > self.limit.window_s):
            self.owed = 0
        self.wanted = self.owed + len(self.asking) + min(lately, self.most_in_advance)
        self.asked_at = now
        self.n_taken = 0


class Line(Protocol):
    """Who speaks with Redis (link.py). Woken, it takes a batch when it can ask (`FleetBuckets.next_batch`), says what
    came of it (`heard`), and takes another one. later: calls back once, after so many seconds."""

    def wake(self) -> None: ...

    def later(self, delay_s: float, callback: Callable[[list[Known]], None], batch: list[Known]) -> object: ...


class FleetBuckets(Fleet):
    """See the module. timeout_s: how long a request waits. clock: monotonic seconds."""

    def __init__(self, line: Line, timeout_s: float, clock: Callable[[], float]) -> None:
        self._line = line
        self._timeout_s = timeout_s
        self._clock = clock
        self._known: OrderedDict[tuple[str, bytes], Known] = OrderedDict()
        self._next: list[Known] = []
        self._asked: list[Known] = []  # which are with Redis
        self._is_up = False
        self._is_late = False
        self._up_at = 0.0

    def take(self, limit: Limit, key: bytes, told: Told) -> int:
        """See Fleet."""
        now = self._clock()
        if len(key) > MOST_KEY:
            key = blake2b(key, digest_size=32).digest()
        known = self._known.get((limit.name, key))
        if known is None or known.limit is not limit:
            known = self._learn(limit, key)
        else:
            self._known.move_to_end((limit.name, key))
        known.n_taken += 1
        if known.in_hand and now < known.hand_until:
            known.in_hand -= 1
            return 0
        if now < known.empty_until:
            return int((known.empty_until - now) * 1e9) or 1
        if not self._is_up or self._is_late:
            if self._is_up:
                known.owe(1, now)
            limit.row[_OPEN] += 1
            return 0
        if not known.told:
            if not self._next:
                self._line.later(self._timeout_s, self._overdue, self._next)
                self._line.wake()
            self._next.append(known)
        known.told.append(told)
        return -1

    def _learn(self, limit: Limit, key: bytes) -> Known:
        if len(self._known) >= MOST_KEYS:
            self._known.popitem(last=False)  # whoever waits for it is in a batch
        known = self._known[limit.name, key] = Known(limit, key)
        return known

    # --- batches ------------------------------------------------------------------------------------------------------

    def next_batch(self) -> list[Known]:
        """What is to be asked now; `heard` follows, or `down`. Nothing if nobody waits."""
        now = self._clock()
        batch = self._next
        self._next = []
        if len(batch) > MOST_IN_BATCH:
            self._next = batch[MOST_IN_BATCH:]
            del batch[MOST_IN_BATCH:]
            self._line.later(self._timeout_s, self._overdue, self._next)
            self._line.wake()
        for known in batch:
            known.want(now, self._up_at)
        self._asked = batch
        return batch

    def heard(self, answers: Sequence[int]) -> None:
        """What Redis says: for each key of the batch how many tokens it gave, and in how many microseconds there is
        another one."""
        now = self._clock()
        batch, self._asked = self._asked, []
        self._is_late = False
        for index, known in enumerate(batch):
            self._settle(known, answers[2 * index], answers[2 * index + 1] / 1e6, now)

    def _settle(self, known: Known, given: int, wait_s: float, now: float) -> None:
        asking, wanted = known.asking, known.wanted
        known.asking = []
        if given < wanted:
            known.empty_until = now + wait_s
        paid = min(given, known.owed)
        known.owed -= paid
        given -= paid
        if given > len(asking):
            known.in_hand = given - len(asking)
            known.hand_until = now + HAND_S
        wait_ns = int(wait_s * 1e9) or 1
        for number, tell in enumerate(asking):
            tell(0 if number < given else wait_ns)

    # --- no answer ----------------------------------------------------------------------------------------------------

    def _overdue(self, batch: list[Known]) -> None:
        """Who waits has waited for long enough; and until Redis answers, nobody waits."""
        if batch and (self._asked is batch or self._next is batch):
            self._is_late = bool(self._asked)  # else it was never asked, and will be the next time
            self._open(is_owed=True)

    def up(self) -> None:
        """Redis can be asked."""
        self._is_up = True
        self._is_late = False
        self._up_at = self._clock()

    def down(self) -> None:
        """It can't."""
        self._is_up = False
        self._open(is_owed=False)
        self._asked = []

    def _open(self, *, is_owed: bool) -> None:
        """Whoever waits passes. is_owed: Redis is late, and not away."""
        waiting = [(known, told) for known in self._asked for told in known.asking]
        waiting += [(known, told) for known in self._next for told in known.told]
        for known in self._asked:
            known.asking = []
        for known in self._next:
            known.told = []
        self._next = []
        now = self._clock()
        for known, tell in waiting:
            if is_owed:
                known.owe(1, now)
            known.limit.row[_OPEN] += 1
            tell(0)
