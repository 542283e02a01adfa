"""A server of a pool: what the operator wants of it, what is observed of it, and what it is doing.

Truth table of `shown` (what users see) and `is_usable` (may take a new request), from the three axes of
domain/states.py; the first matching row holds:

    admin   breaker   health        shown     usable
    maint   any       any           maint     no
    drain   any       any           drain     no
    ready   ejected   any           ejected   no
    ready   any       down          down      no       (probing a server that is down makes no sense)
    ready   probing   not down      probing   only by its probe permit
    ready   closed    busy          busy      yes
    ready   closed    up, unknown   up        yes

`down_reason` "refused" means that the kernel said no: nobody listens there, and fail-open never uses such a server.
Any other reason is a verdict of checks, which may be wrong: but only about a server that they have once found well. One
that never passed is as likely still loading its model, or not the right program at all.

Load. Strategies that go by load pick by `inflight` and look at `penalty_until` of the winner only: a penalty can only
make a server less attractive, so a winner without one has won. `load(now)` is inflight plus the failure penalty. A
failed answer is cheap for the server that gives it, and a server that fails in 1 ms always looks idle; without the
penalty it draws the traffic of the whole pool (16.8 % client errors with one such server of 16, in simulation).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, exp, inf
from typing import Final

from lbproxy.address import Address
from lbproxy.domain.breaker import CircuitBreaker
from lbproxy.domain.idle_timeout import IdleTimeout
from lbproxy.domain.reuse import ReuseLimit
from lbproxy.domain.states import Admin, Breaker, Health

LATENCY_TAU_S: Final = 10.0
NO_LIMIT: Final = 1 << 60
PENALTY_S: Final = 5.0  # Linkerd's load biaser: a failed answer is as bad as one that takes 5 s
PENALTY_MAX_S: Final = 60.0  # a Retry-After of a day is not a reason to overload the others for a day
# Errors 500 that bad requests cause are spread over all servers and mixed with good answers; this many on end from one
# server are its own doing, or everybody has them.
ERRORS_IN_A_ROW: Final = 3
# One second of penalty weighs as much as ten requests in flight: a penalised server is left alone for most of the
# penalty unless the others are swamped.
PENALTY_LOAD_PER_S: Final = 10.0


class Server:
    """One address of a pool. Identity = pool + address; counters and states survive a change of anything else.

    inflight counts requests (TCP: connections) given to it and not finished; the pool's books alone change it.
    max_inflight 0 means no limit. progress_at is the last time (monotonic seconds) it finished a request or sent a
    byte. host is the name or address that the config gives for it, which TLS verifies. was_up: a check has found it
    well at least once. zone: where it stands, "" if nobody says. far: in another zone than lbproxy, whose
    own comes first. keep_sticky: while drained it still takes requests of clients who stick to it. cut_at: what is
    in flight then is cut, as an operator has asked for; inf: nothing is.

    limit is what max_inflight comes to now: during slow start it is less. n_quarantined of its slots were given up by
    requests that ended before their answer (the server may still be at work on them), and free_limit = limit -
    n_quarantined. effective_weight is the weight times the ramp of slow start. penalty_until is 0.0 or the time at
    which its failure penalty ends. errors_in_a_row counts bad ends on end: failures, answers 5xx and bad answers.
    latency_s is the average of `latency` as it was at the last answer, which came at latency_at; 0.0: there was none.
    """

    __slots__ = (
        "_max_inflight",
        "_penalty_is_firm",
        "_quarantine",
        "_ramp",
        "_served",
        "_served_s",
        "_served_squares",
        "_weight",
        "address",
        "admin",
        "backup",
        "breaker",
        "changed_at",
        "circuit",
        "cut_at",
        "down_reason",
        "effective_weight",
        "errors",
        "errors_in_a_row",
        "far",
        "fastest_elsewhere_s",
        "free_limit",
        "health",
        "host",
        "idle_timeout",
        "inflight",
        "keep_sticky",
        "key",
        "latency_at",
        "latency_s",
        "limit",
        "name",
        "penalty_until",
        "progress_at",
        "requests",
        "reuse",
        "service_min_s",
        "service_p95_s",
        "was_up",
        "why",
        "zone",
    )

    def __init__(
        self,
        name: str,
        address: Address,
        *,
        weight: int = 1,
        max_inflight: int = 0,
        backup: bool = False,
        host: str = "",
    ) -> None:
        self.name = name
        self.address = address
        self.host = host or address.host
        self.key = str(address)
        self._ramp = 1.0
        self._weight = weight
        self.effective_weight = float(weight)
        self._quarantine: list[tuple[float, float]] = []
        self.backup = backup
        self.zone = ""
        self.far = False
        self.inflight = 0
        self.admin = Admin.READY
        self.keep_sticky = False
        self.health = Health.UNKNOWN
        self.breaker = Breaker.CLOSED
        self.circuit: CircuitBreaker | None = None
        self.down_reason = ""
        self.was_up = False
        self.why = ""
        self.changed_at = 0.0
        self.cut_at = inf
        self.progress_at = float("-inf")
        self.requests = 0
        self.errors = 0
        self.errors_in_a_row = 0
        self._served = 0
        self._served_s = self._served_squares = 0.0
        self.penalty_until = 0.0
        self._penalty_is_firm = False
        self.service_p95_s = 0.0
        self.service_min_s = 0.0
        self.fastest_elsewhere_s = 0.0
        self.idle_timeout = IdleTimeout()
        self.reuse = ReuseLimit()
        self.latency_s = 0.0
        self.latency_at = 0.0
        self.max_inflight = max_inflight

    # --- what the operator set --------------------------------------------------------------------------------------

    @property
    def weight(self) -> int:
        """As configured; strategies that share by weight go by `effective_weight`."""
        return self._weight

    @weight.setter
    def weight(self, weight: int) -> None:
        self._weight = weight
        self.effective_weight = weight if self._ramp == 1.0 else weight * self._ramp

    @property
    def max_inflight(self) -> int:
        """As configured, 0 = no limit; `limit` is what counts now."""
        return self._max_inflight

    @max_inflight.setter
    def max_inflight(self, max_inflight: int) -> None:
        self._max_inflight = max_inflight
        self._settle_limits()

    def set_ramp(self, factor: float) -> None:
        """Slow start: take `factor` (0.1 to 1.0) of the weight and of the limit, at least one request at once."""
        self._ramp = factor
        self.weight = self._weight
        self._settle_limits()

    def _settle_limits(self) -> None:
        limit = self._max_inflight
        if limit <= 0:
            self.limit = self.free_limit = NO_LIMIT
            return
        # 1e-9: 10 x 0.3 is a little more than 3 in floating point and must not become 4.
        self.limit = limit if self._ramp == 1.0 else max(1, ceil(limit * self._ramp - 1e-9))
        self.free_limit = self.limit - len(self._quarantine)

    # --- what is observed -------------------------------------------------------------------------------------------

    @property
    def is_usable(self) -> bool:
        """May take a new request, as far as the three axes go (see the table above). Weight 0 means drained."""
        return (
            self.admin is Admin.READY
            and self.breaker is Breaker.CLOSED
            and self.health is not Health.DOWN
            and self.weight > 0
        )

    @property
    def keeps_its_own(self) -> bool:
        """Is it drained of all but the clients who stick to it, and well?"""
        return (
            self.keep_sticky
            and self.admin is Admin.DRAIN
            and self.breaker is Breaker.CLOSED
            and self.health is not Health.DOWN
            and self.weight > 0
        )

    @property
    def n_quarantined(self) -> int:
        return len(self._quarantine)

    @property
    def shown(self) -> str:
        """The state that users see: up, busy, down, ejected, probing, drain or maint."""
        if self.admin is not Admin.READY:
            return self.admin.value
        if self.breaker is Breaker.EJECTED:
            return "ejected"
        if self.health is Health.DOWN:
            return "down"
        if self.breaker is Breaker.PROBING:
            return "probing"
        return "busy" if self.health is Health.BUSY else "up"

    def latency(self, now: float) -> float:
        """Peak-sensitive moving average of the time to the end of the answer, in seconds, decayed to `now`.

        Finagle's peak EWMA: a slower answer counts at once, faster ones pull the value down with tau = 10 s.
        """
        if self.latency_s == 0.0:
            return 0.0
        return self.latency_s * exp(-max(0.0, now - self.latency_at) / LATENCY_TAU_S)

    def observe_latency(self, elapsed_s: float, now: float) -> None:
        """Feed one answer's time into the average."""
        before = self.latency_s
        if elapsed_s < before:
            # exp(-dt/tau) is 1 - dt/tau to within 1e-7 while answers are closer than 5 ms.
            gap = (now - self.latency_at) / LATENCY_TAU_S
            elapsed_s += (before - elapsed_s) * (1.0 - gap if gap < 0.0005 else exp(-gap))
        self.latency_s = elapsed_s
        self.latency_at = now

    def take_latencies(self, seen: Sequence[tuple[float, float]]) -> None:
        """Other processes have seen these: each one's latency_s and latency_at. The highest as of the last answer of
        any, since one process that had all of these answers would know little of an older one by then."""
        last = max((at for latency_s, at in seen if latency_s), default=0.0)
        self.latency_at = last
        self.latency_s = max((each_s * exp((at - last) / LATENCY_TAU_S) for each_s, at in seen if each_s), default=0.0)

    def observe_service(self, elapsed_s: float) -> None:
        """Feed one answer's time into `service_p95_s`, a running 95th percentile, and `service_min_s`.

        The percentile goes up by 9.5 % for a longer time, down by 0.5 % for a shorter one: at rest when one in twenty
        is longer. The minimum falls at once and rises by 0.1 % with each longer time: a bound that hardly any request
        of late was below.
        """
        p95 = self.service_p95_s
        if p95 == 0.0:
            self.service_p95_s = self.service_min_s = elapsed_s
            return
        self.service_p95_s = p95 * (1.095 if elapsed_s > p95 else 0.995)
        fastest = self.service_min_s * 1.001
        self.service_min_s = elapsed_s if elapsed_s < fastest else fastest

    @property
    def fastest_s(self) -> float:
        """The shortest service time of late that any process has seen, 0 = unknown. Those of others are told to
        `fastest_elsewhere_s`."""
        own, other = self.service_min_s, self.fastest_elsewhere_s
        return min(own, other) if own and other else own or other

    def note_served(self, elapsed_s: float) -> None:
        """Note one answer's time for `take_served`."""
        self._served += 1
        self._served_s += elapsed_s
        self._served_squares += elapsed_s * elapsed_s

    def take_served(self) -> tuple[int, float, float]:
        """Service times since the last call: how many, their sum in seconds, the sum of their squares."""
        taken = self._served, self._served_s, self._served_squares
        self._served, self._served_s, self._served_squares = 0, 0.0, 0.0
        return taken

    # --- failure penalty --------------------------------------------------------------------------------------------

    def load(self, now: float) -> float:
        """Requests in flight, plus what is left of the failure penalty in the same unit."""
        return self.inflight + self.penalty_s(now) * PENALTY_LOAD_PER_S

    def penalty_s(self, now: float) -> float:
        """Seconds of penalty that are left; it decays by one second a second."""
        until = self.penalty_until
        if until == 0.0:
            return 0.0
        if until <= now:
            self.penalty_until = 0.0
            return 0.0
        return until - now

    def is_held(self, now: float) -> bool:
        """Has it done nothing but fail of late, or asked for less? Then its slots are not for who can wait for others.

        One failure among good answers is no reason: a pool of which each server fails now and then needs all its slots.
        """
        return (self.errors_in_a_row >= ERRORS_IN_A_ROW or self._penalty_is_firm) and self.penalty_s(now) > 0.0

    def penalise(self, penalty_s: float, now: float, *, is_firm: bool = False) -> None:
        """A failed answer. The longer penalty wins. is_firm: the server named the time, answers do not shorten it."""
        until = now + min(penalty_s, PENALTY_MAX_S)
        if until > self.penalty_until:
            self.penalty_until = until
            self._penalty_is_firm = is_firm

    def forgive(self, now: float) -> None:
        """A good answer halves what is left, so that one failure in a hundred does not upset the balance."""
        left = self.penalty_s(now)
        if left and not self._penalty_is_firm:
            self.penalty_until = now + left / 2 if left > 0.01 else 0.0

    @property
    def penalty_is_firm(self) -> bool:
        """Did the server itself name the time?"""
        return self._penalty_is_firm

    def take_penalty(self, until: float, *, is_firm: bool) -> None:
        """Another worker knows of this penalty, or that there is none any more (0.0)."""
        self.penalty_until = until
        self._penalty_is_firm = is_firm

    # --- slots of requests that ended early -------------------------------------------------------------------------

    def quarantine_slot(self, quarantine_s: float, now: float) -> None:
        """A request was given up: its slot is used last for a while, as closing a connection does not stop a worker."""
        self._quarantine.append((now, now + quarantine_s))
        if len(self._quarantine) > self._max_inflight:
            self._quarantine.pop(0)  # there are no more slots than that: the newest counts
        self._settle_limits()

    def end_quarantine(self, now: float, *, newest_start: float = float("-inf")) -> bool:
        """End what is over by time, and the oldest that began before `newest_start`. True if none is left.

        newest_start: when a request was given to the server that has answered since.
        """
        kept = [item for item in self._quarantine if item[1] > now]
        if kept and kept[0][0] <= newest_start:
            del kept[0]
        if len(kept) != len(self._quarantine):
            self._quarantine = kept
            self._settle_limits()
        return not kept

    def __repr__(self) -> str:
        return f"<Server {self.name} {self.shown} {self.inflight}/{self.max_inflight or 'inf'}>"
