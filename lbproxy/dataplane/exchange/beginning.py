"""How a request begins: whether it is let through, where it belongs, and a slot at a server for it.

    the head          a limit of the fleet is asked      -> waits for that answer
                      its route depends on the body      -> waits for more of it (choosing.py)
                      its key stands in the body         -> likewise (affinity.py)
                      neither                            -> placed, answered here, or refused
    a further try     is placed as the first was

What it waits for finds the request done, perhaps: then nothing more happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lbproxy import errors
from lbproxy.compiling import mypyc_attr
from lbproxy.dataplane.exchange import accounts
from lbproxy.dataplane.exchange.admission import Admission, TooMany
from lbproxy.dataplane.exchange.affinity import (
    STICKY_KEPT,
    STICKY_MOVED,
    STICKY_NEW,
    STICKY_SPILLED,
    Affinity,
)
from lbproxy.dataplane.exchange.attempt import Attempt
from lbproxy.dataplane.exchange.attempt_books import NEVER
from lbproxy.dataplane.exchange.choosing import Choosing
from lbproxy.dataplane.exchange.keeping import Keeping
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.guard import Check
from lbproxy.dataplane.runtime import PoolRuntime, ServerRuntime
from lbproxy.domain.lease import Lease, Refusal
from lbproxy.domain.sticky import Sticky
from lbproxy.domain.strategies.base import PickContext
from lbproxy.errors import Fault
from lbproxy.protocol.message import Field

DIAL_BUFFER: Final = 64 * 1024


@mypyc_attr(allow_interpreted_subclasses=True)
class Beginning(Keeping):
    """See the module. The exchange gives the attributes their first values: a call less for each request.

    runtime: of the last server that it was given to. _admission: while the rate limits of the fleet are asked.
    _affinity: only where the pool asks for more than the head. _choosing: only while the route is not known.
    _started, _total_deadline: when it came, and until when all of it may last, in monotonic seconds.
    """

    __slots__ = ("_admission", "_affinity", "_choosing", "_is_done", "_started", "_total_deadline", "runtime")

    _admission: Admission | None
    _affinity: Affinity | None
    _choosing: Choosing | None
    _is_done: bool
    _started: float
    _total_deadline: float
    runtime: ServerRuntime | None

    @property
    def is_done(self) -> bool:
        return self._is_done

    def start(self, body: bytes, *, is_done: bool, trailers: Sequence[Field] = ()) -> None:
        """The head is there, and what came of the body with it. trailers: what came behind a body that is done."""
        self.request_done = is_done
        self.bytes_in = len(body)
        self.body.add(body, is_done=is_done, trailers=trailers)
        checks = self.prepared.checks
        if checks is None or self._is_admitted(checks):
            self._begin(body, is_done=is_done)

    def _is_admitted(self, checks: tuple[Check, ...]) -> bool:
        """Do the rate limits let it through, as far as they know now?"""
        admission = Admission(checks, self.client, self.services.clock)
        if not admission.ask(self._limits_asked):
            self._admission = admission
            self._note_pool()
            return False
        if admission.refusal is None:
            return True
        self._refuse(admission.refusal)
        return False

    def _limits_asked(self) -> None:
        """The fleet has said whether it is let through; from among others who wait for the same answer."""
        try:
            self._go_on_admitted()
        except Exception as error:  # a defect: confined to this request
            self.services.internal_error("a request behind a rate limit", error)
            self.fail(errors.INTERNAL_ERROR, "internal error")

    def _go_on_admitted(self) -> None:
        admission = self._admission
        self._admission = None
        if self._is_done or admission is None:
            return
        if admission.refusal is not None:
            self._refuse(admission.refusal)
            return
        self._begin(self.body.content(), is_done=self.request_done)
        if not self.is_done and not self.request_done and self.body.kept > DIAL_BUFFER and not self._has_server():
            self.pause_body()

    def _refuse(self, refusal: TooMany) -> None:
        self.refusal = refusal
        self._note_pool()
        self.fail(refusal.limit.fault, refusal.detail)

    def _note_pool(self) -> None:
        """Where it would go, for log and counters."""
        pool = self.pool_runtime = self.prepared.route.pool
        if pool is not None:
            self.pool = pool.name

    def _begin(self, body: bytes, *, is_done: bool) -> None:
        """Nothing is against it: answer it, or find it a server."""
        prepared = self.prepared
        pool = prepared.pool
        if pool is None or self.services.pressure.is_refusing:
            self._answer_here(prepared)
        else:
            self._go(prepared, pool, body, self._started, is_done=is_done)

    def _go(self, prepared: Prepared, pool: PoolRuntime, body: bytes, now: float, *, is_done: bool) -> None:
        """To a server of this pool. body: what came of it so far."""
        self.pool_runtime = pool
        self.pool = pool.name
        if prepared.total_s != NEVER:
            self._total_deadline = self._started + prepared.total_s
            if not prepared.total_s:
                self.fail(errors.TOTAL_TIMEOUT, "there was no time left for it when it came")
                return
        if pool.sticky is not None or pool.pool.picker.reads_bodies:
            affinity = self._affinity = Affinity(pool, prepared, self.wall)
            if not affinity.read(body, is_done=is_done):
                self._await_key()
                return
        self._place_it(pool, now)

    def _choose(self, choosing: Choosing, data: bytes, *, is_done: bool) -> None:
        """More of a body that came before the route was known, or may never come."""
        chosen = choosing.read(self.body, data, is_done=is_done)
        if chosen is None:
            if self.services.pressure.is_holding:
                self._choosing = None
                self.fail(errors.OVERLOADED, "")  # to go on without its body could lead it to the wrong pool
            else:
                self._await_key()
            return
        self._choosing = None
        self.prepared = chosen
        pool = chosen.pool
        if pool is None:
            self._answer_here(chosen)
            return
        self._go(chosen, pool, self.body.content(), self.services.clock(), is_done=is_done)
        if not self._is_done and not is_done and self.body.kept > DIAL_BUFFER and not self._has_server():
            self.pause_body()

    def _await_key(self) -> None:
        """The body has to say where the request goes: whoever waits to be asked for it is."""
        self.resume_body()  # it may have been held up while the fleet was asked
        if self.prepared.expects_continue and not self.continue_sent:
            self.continue_sent = True
            self.side.send_interim(None)

    def _look_for_key(self, affinity: Affinity, pool: PoolRuntime, data: bytes, *, is_done: bool) -> None:
        """More of a body that came before there was a server for it."""
        if not affinity.read(data, is_done=is_done):
            if not self.services.pressure.is_holding:
                return
            affinity.give_up()  # memory is short: nothing is kept for long
        self._place_it(pool, self.services.clock())
        if not self._is_done and not is_done and self.body.kept > DIAL_BUFFER and not self._has_server():
            self.pause_body()

    def _has_server(self) -> bool:
        return self.attempt is not None and self.attempt.upstream is not None

    def _answer_here(self, prepared: Prepared) -> None:
        """This request goes to no server, or it is not known yet to which pool."""
        if prepared.fork is not None:
            if self.services.pressure.is_refusing:
                self.fail(errors.OVERLOADED, "")
                return
            self._total_deadline = self._started + prepared.total_s
            self._choosing = Choosing(prepared.fork, self.client)
            self._choose(self._choosing, self.body.content(), is_done=self.request_done)
            return
        self._note_pool()
        pool = self.pool_runtime
        if prepared.fault is not None:
            self.fail(prepared.fault, prepared.fault_detail)
        elif pool is None or prepared.is_local:
            self.side.answer_locally(self)
        else:
            self.fail(errors.OVERLOADED, "")

    def request_body(self, data: bytes, *, is_done: bool, trailers: Sequence[Field] = ()) -> None:
        """More of the request's body arrived, its last byte and trailers if `is_done`; nobody's behind the answer."""
        if self._is_done:
            return
        self.bytes_in += len(data)
        self.request_done = is_done
        has_server = self._has_server()
        self.body.add(data, is_done=is_done, trailers=trailers)
        if self._choosing is not None:
            self._choose(self._choosing, data, is_done=is_done)
            return
        affinity, pool = self._affinity, self.pool_runtime
        if affinity is not None and affinity.search is not None and pool is not None:
            self._look_for_key(affinity, pool, data, is_done=is_done)
            return
        if not has_server and not is_done and (self.body.kept > DIAL_BUFFER or self.services.pressure.is_holding):
            self.pause_body()

    # --- a server ---------------------------------------------------------------------------------------------------

    def _place_it(self, pool: PoolRuntime, now: float) -> None:
        bound = self.side.bound
        if bound is not None and bound.whose().pool is pool and not self._retries and not self._wants_fresh:
            lease = pool.pool.acquire_at(bound.whose().server, now)
            if lease is not None:
                self.leased(lease, now)
                return
        prepared = self.prepared
        context = PickContext(self.client, prepared.meaning if prepared.tail is None else prepared)
        affinity = self._affinity
        if affinity is not None:
            context.key = affinity.key
            if affinity.sticky is not None and self._is_kept(affinity, affinity.sticky, pool, context, now):
                return
        self.claim(self.services, pool.pool, pool.row, context, now, self._total_deadline)

    def _is_kept(self, affinity: Affinity, sticky: Sticky, pool: PoolRuntime, context: PickContext, now: float) -> bool:
        """Does it go to the server to which its client sticks, or wait for that?"""
        server = affinity.server
        affinity.stays = False
        if server is None or server in self.tried:
            affinity.count(pool, STICKY_NEW if server is None else STICKY_MOVED)
            return False
        lease = pool.pool.acquire_kept(server, now)
        if isinstance(lease, Lease):
            affinity.count(pool, STICKY_KEPT)
            self.leased(lease, now)
            return True
        if lease is Refusal.NO_SERVER:
            affinity.count(pool, STICKY_MOVED)
            return False
        wait_s = sticky.settings.wait_s
        if wait_s and not affinity.has_waited:
            affinity.has_waited = True
            until = min(now + wait_s, self._total_deadline)
            if self.claim_kept(self.services, pool.pool, pool.row, context, server, now, until):
                affinity.count(pool, STICKY_KEPT)
                return True
        affinity.count(pool, STICKY_SPILLED)
        affinity.stays = True  # its cookie: the client comes back with its next request
        return False

    def not_kept(self, now: float) -> None:
        """See Claimant."""
        pool = self.pool_runtime
        if pool is not None:
            self._place_it(pool, now)

    def not_placed(self, fault: Fault, detail: str) -> None:
        """See Claimant."""
        self.fail(fault, detail)

    def broke(self, error: Exception) -> None:
        """See Claimant."""
        self.fail(errors.INTERNAL_ERROR, "internal error")

    def leased(self, lease: Lease, now: float) -> None:
        """See Claimant."""
        attempt = self.attempt = Attempt(self, lease, now)  # first: it gives the lease back, whatever fails
        pool = self.pool_runtime
        assert pool is not None
        self.attempts += 1
        if self.queue_s is None:
            self.queue_s = 0.0
        runtime = self.runtime = pool.servers[lease.server]
        self.server = runtime.label
        if pool.pool.is_failing_open:
            accounts.failed_open(pool)
        attempt.start(runtime, now, wants_fresh=self._wants_fresh)
