"""Why a server may or may not take the next request, in words.

Whether it may is asked of the pool; the words follow the order in which its states count (domain/server.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.states import Admin, Breaker, Health


@dataclass(frozen=True, slots=True)
class Standing:
    """may_take: a new request now. is_last: only while no other has a slot. why: "" if there is nothing to say."""

    may_take: bool
    is_last: bool
    why: str


def standings(pool: Pool, now: float) -> list[tuple[Server, Standing]]:
    """How things stand for each server of the pool, in its order."""
    near = pool.eligible()
    beyond = pool.members.beyond
    # What is left of the own zone, penalties aside, is what a request that nobody has tried yet would find.
    is_spilling = bool(beyond) and all(server.inflight >= server.free_limit for server in near)
    eligible = {*near, *beyond} if is_spilling else {*near}
    return [(server, _standing(pool, server, now, is_eligible=server in eligible)) for server in pool.servers]


def _standing(pool: Pool, server: Server, now: float, *, is_eligible: bool) -> Standing:
    if not is_eligible:
        return _out(pool, server, now)
    if server.inflight >= server.limit:
        ramp = f"; slow start lets it have {server.limit} of {server.max_inflight}" if _is_ramped(server) else ""
        return Standing(False, False, f"full: {server.inflight} of {server.limit} in flight{ramp}")
    notes: list[str] = []
    is_last = False
    if not server.is_usable:
        notes.append(f"its checks fail ({server.why or 'no reason is known'}), but the pool fails open")
    if server.inflight >= server.free_limit:
        is_last = True
        notes.append(
            f"used last: its free slots are quarantined ({server.n_quarantined}), as their requests were given up"
        )
    penalty_s = server.penalty_s(now)
    if penalty_s > 0.0 and pool.picker.heeds_penalties:
        is_held = server.is_held(now)
        is_last = is_last or is_held
        notes.append(f"{'used last' if is_held else 'counts as loaded'} for {penalty_s:.1f} s, as it failed lately")
    if pool.is_slower(server):
        is_last = True
        notes.append("used last, as it is slower than the others")
    if server.health is Health.BUSY:
        notes.append(f"busy: {server.why}" if server.why else "busy")
    if server.effective_weight != server.weight:
        notes.append(f"slow start: {server.effective_weight / server.weight:.0%} of its share")
    if server.backup:
        notes.append("a backup, and no other is usable")
    if server in pool.members.beyond:
        notes.append("in another zone, and those of this one are full")
    elif server.far:
        notes.append("in another zone, and too few of this one are usable")
    return Standing(True, is_last, "; ".join(notes))


def _out(pool: Pool, server: Server, now: float) -> Standing:
    why = pool.why(server, now)
    if server.admin is not Admin.READY:
        what = "in maintenance" if server.admin is Admin.MAINT else "drained"
        if why.startswith(what):  # and says by whom
            return Standing(False, False, f"{why}{_since(server, now)}")
        return Standing(False, False, f"{what}{_since(server, now)}{_because(why)}")
    if server.breaker is Breaker.EJECTED:
        return Standing(False, False, why)
    if server.health is Health.DOWN:
        return Standing(False, False, f"down{_since(server, now)}{_because(why)}")
    if server.weight == 0:
        return Standing(False, False, "its weight is 0: no new requests")
    if server.breaker is Breaker.PROBING:
        if pool.is_due(server, now):
            return Standing(True, False, why)
        waits = "" if "probe is out" in why else "; not now"
        return Standing(False, False, f"{why}{waits}")
    if server.backup:
        return Standing(False, False, "a backup, and others are usable")
    if server.far and not why:
        return Standing(False, False, "in another zone, and enough of this one are usable and have room")
    return Standing(False, False, why)


def _is_ramped(server: Server) -> bool:
    return server.limit < server.max_inflight


def _since(server: Server, now: float) -> str:
    return f" since {max(0.0, now - server.changed_at):.0f} s" if server.changed_at else ""


def _because(why: str) -> str:
    return f": {why}" if why else ""
