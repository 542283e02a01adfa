"""What the end of a request says about its server: penalties, slots that are used last, and ejections.

Ejections: the breaker of a server proposes, and the pool agrees if not more than `max_ejected` of its members are then
out (ejected or probing) and somebody else is usable. An ejection ends only by a successful real request, or when the
pool has shrunk and cannot spare the server any more.
"""

from __future__ import annotations

from typing import Final

from lbproxy.domain.breaker import OUTLIER, BreakerPolicy, CircuitBreaker
from lbproxy.domain.lease import Lease, Outcome
from lbproxy.domain.members import Members
from lbproxy.domain.outliers import Outliers, are_well
from lbproxy.domain.server import ERRORS_IN_A_ROW, PENALTY_S, Server
from lbproxy.domain.states import Breaker, Health

HOLD_AFTER_ABORT_S: Final = 1.0  # a client that gave up on a probe: do not send the next client after it at once


class Judge:
    """The verdicts of one pool. All times are monotonic seconds given by the caller; the rest: see Pool.

    is_hashing: the strategy sends each client to a server of its own.
    """

    __slots__ = ("_members", "_outliers", "_policy", "_quarantined", "max_ejected")

    def __init__(self, members: Members, policy: BreakerPolicy | None, *, max_ejected: float, is_hashing: bool) -> None:
        self.max_ejected = max_ejected
        self._members = members
        self._policy = policy
        self._outliers = Outliers(is_hashing=is_hashing)
        self._quarantined: set[Server] = set()
        for server in members.servers:
            self.equip(server)

    def equip(self, server: Server) -> None:
        """A server joins: it gets a breaker, unless it has one, or there are none."""
        if self._policy is not None and server.circuit is None:
            server.circuit = CircuitBreaker(self._policy)

    def reconfigure(self, policy: BreakerPolicy | None, *, max_ejected: float, is_hashing: bool, now: float) -> None:
        """Other rules from the next answer on. Without breakers nobody stays ejected; who gets one begins anew."""
        self._policy = policy
        self.max_ejected = max_ejected
        self._outliers.is_hashing = is_hashing
        for server in self._members.servers:
            circuit = server.circuit
            if policy is None:
                server.circuit = None
                if circuit is not None and server.breaker is not Breaker.CLOSED:
                    self._members.closed(server, server.shown, "there are no circuit breakers any more", now)
            elif circuit is not None:
                circuit.reconfigure(policy)
            else:
                self.equip(server)
        self.membership_changed(now)

    # --- ends of requests -------------------------------------------------------------------------------------------

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
        """The books of a lease that did not end in success."""
        server = lease.server
        if quarantine_s > 0.0 and server.max_inflight:
            p95 = server.service_p95_s
            server.quarantine_slot(min(p95, quarantine_s) if p95 else quarantine_s, now)
            self._quarantined.add(server)
        if outcome is Outcome.PUSH_BACK:
            server.progress_at = now
            server.penalise(penalty_s or PENALTY_S, now, is_firm=penalty_s > 0.0)
        if outcome is Outcome.ERROR or outcome is Outcome.BAD_ANSWER:
            # Not a reason to eject, as the requests may be at fault; but errors are quick, and the server looks idle.
            server.errors_in_a_row += 1
            is_bad = outcome is Outcome.BAD_ANSWER
            if is_bad:
                server.errors += 1
            else:
                server.progress_at = now
            if is_bad or penalty_s > 0.0 or server.errors_in_a_row >= ERRORS_IN_A_ROW:
                server.penalise(PENALTY_S, now)
            self._judge_error(lease, now, request_key, is_bad=is_bad, what=what)
        elif outcome is Outcome.FAILURE:
            server.errors += 1
            server.errors_in_a_row += 1
            server.penalise(penalty_s or PENALTY_S, now, is_firm=penalty_s > 0.0)
            self.judge(lease, False, now, what=what)
        else:
            hold_s = (penalty_s or PENALTY_S) if outcome is Outcome.PUSH_BACK else 0.0
            self.judge(lease, None, now, hold_s=HOLD_AFTER_ABORT_S if outcome is Outcome.ABORTED else hold_s)

    def _judge_error(self, lease: Lease, now: float, request_key: int, *, is_bad: bool, what: str) -> None:
        """An error that the request may be to blame for: what it says alone, and what it says beside the others'."""
        server = lease.server
        servers = self._members.servers
        circuit = server.circuit
        if circuit is None or lease.generation != circuit.generation:
            return
        is_news = circuit.is_news(request_key)
        verdict: bool | None = True  # an answer 5xx is one for the breaker's own rules
        if is_bad:
            verdict = False if is_news else None
        elif circuit.state is Breaker.PROBING and circuit.is_outlier and are_well(server, servers, now):
            verdict, what = False, "another error"
        self.judge(lease, verdict, now, what=what)
        if server.breaker is Breaker.CLOSED and circuit.generation == lease.generation:
            if verdict:
                circuit.n_errors += 1
            elif verdict is None:
                circuit.n_repeats += 1
            if self._outliers.stands_out(server, servers, now) and self._can_spare(server):
                self._eject(server, circuit, OUTLIER, now, what)

    def judge(self, lease: Lease, ok: bool | None, now: float, *, hold_s: float = 0.0, what: str = "failures") -> None:
        """Tell the breaker; ok None says nothing about the server, but gives a probe's permit back."""
        server = lease.server
        circuit = server.circuit
        if circuit is None or lease.generation != circuit.generation:
            return
        old = server.shown
        is_probe = circuit.state is Breaker.PROBING
        if is_probe:
            reason = circuit.probe_finished(ok, now, hold_s=hold_s)
            if ok:
                self._members.closed(server, old, "a probe succeeded", now)
        else:
            reason = circuit.observe(ok, lease.generation, now) if ok is not None else None
        if reason is not None and (is_probe or self._can_spare(server)):
            self._eject(server, circuit, reason, now, what)

    # --- ejections --------------------------------------------------------------------------------------------------

    def _eject(self, server: Server, circuit: CircuitBreaker, reason: str, now: float, what: str) -> None:
        old = server.shown
        circuit.eject(reason, now, what)
        self._members.ejected(server, old, circuit.what, now)

    def resume_ejection(
        self, server: Server, reason: str, what: str, level: int, open_until: float, now: float
    ) -> bool:
        """See Pool."""
        circuit = server.circuit
        if circuit is None or server.breaker is not Breaker.CLOSED or not self._can_spare(server):
            return False
        old = server.shown
        circuit.resume(reason, what, level, open_until, now)
        self._members.ejected(server, old, what, now)
        return True

    @property
    def most_ejected(self) -> int:
        """How many may be out at once."""
        return int(self.max_ejected * len(self._members.servers))

    def _can_spare(self, server: Server) -> bool:
        servers = self._members.servers
        if server not in servers or len(self._members.out) >= self.most_ejected:
            return False
        return any(other is not server and other.is_usable for other in servers)

    def membership_changed(self, now: float) -> None:
        """Take the longest ejected back if the pool cannot spare so many any more."""
        members = self._members
        while len(members.out) > self.most_ejected:
            server = members.out[0]
            old = server.shown
            if server.circuit is not None:
                server.circuit.close(now)
            members.closed(server, old, "the pool has shrunk and cannot spare it", now)

    # --- time -------------------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """What time brings: probes, and slots that are like others again."""
        for server in tuple(self._members.out):
            old = server.shown
            circuit = server.circuit
            if circuit is not None and circuit.tick(now):
                server.breaker = Breaker.PROBING
                why = server.why if server.health is Health.DOWN else circuit.what
                self._members.changed(server, old, why, now)
        for server in tuple(self._quarantined):
            # With one slot, progress after the abort can only be that of a later request, or of the one given up.
            newest_start = server.progress_at - 1e-9 if server.max_inflight == 1 else float("-inf")
            if server.end_quarantine(now, newest_start=newest_start):
                self._quarantined.discard(server)
