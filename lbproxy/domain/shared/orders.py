"""What the controller says of servers, as words that all workers read.

Only the controller writes them, each at once, and then counts CHANGED up; a worker that sees it changed reads all of
them. So it may see half of an order for a moment, and the whole at the next count. 0 says nothing: the config holds.
"""

from __future__ import annotations

from math import inf
from typing import Final

from lbproxy.domain.pool import Pool
from lbproxy.domain.reuse import NO_LIMIT
from lbproxy.domain.server import Server
from lbproxy.domain.shared.books import SharedBooks
from lbproxy.domain.shared.cells import Cells
from lbproxy.domain.shared.plan import (
    ADMIN,
    CHANGED,
    CUT_AT,
    HEALTH,
    IDLE,
    MAX_INFLIGHT,
    REUSE,
    ROLE,
    WAS_UP,
    WEIGHT,
    Plan,
)
from lbproxy.domain.states import REFUSED, Admin, Health

_ADMINS: Final = {admin: number for number, admin in enumerate(Admin, 1)}
_HEALTHS: Final = {health: number for number, health in enumerate(Health, 1)}
_REFUSED: Final = 5  # down, because the kernel of the server said so
_KEEPS: Final = len(_ADMINS) + 1  # drained, but for the clients that stick to it
_ADMIN_OF: Final = {**{number: admin for admin, number in _ADMINS.items()}, _KEEPS: Admin.DRAIN}
_HEALTH_OF: Final = {**{number: health for health, number in _HEALTHS.items()}, _REFUSED: Health.DOWN}
_FAILED: Final = "checks"
_WHY: Final = "as the controller says"
_TOLD: Final = 1  # of a role: that it is told at all
_IS_BACKUP: Final = 2
_IS_FAR: Final = 4
_LIFTED: Final = -1


def write_orders(cells: Cells, plan: Plan, server: Server, seat: int) -> bool:
    """Write down this server as the controller has it. False: that stands there already."""
    health = _HEALTHS[server.health]
    if server.health is Health.DOWN and server.down_reason == REFUSED:
        health = _REFUSED
    at = plan.server(seat)
    reuse = server.reuse.limit
    if reuse == NO_LIMIT:
        reuse = 0 if cells[at + REUSE] == 0 else _LIFTED
    is_news = False
    for name, word in (
        (ADMIN, _KEEPS if server.keep_sticky else _ADMINS[server.admin]),
        (HEALTH, health),
        (WEIGHT, server.weight + 1),
        (MAX_INFLIGHT, server.max_inflight + 1),
        (IDLE, int(server.idle_timeout.learned_s * 1e9)),
        (REUSE, reuse),
        (ROLE, _TOLD + (_IS_BACKUP if server.backup else 0) + (_IS_FAR if server.far else 0)),
        (CUT_AT, int(server.cut_at * 1e9) if server.cut_at < inf else 0),
        (WAS_UP, int(server.was_up)),
    ):
        if cells[at + name] != word:
            cells[at + name] = word
            is_news = True
    return is_news


def tell(cells: Cells, plan: Plan, server: Server, seat: int) -> None:
    """Let all workers have this server as the controller has it."""
    if write_orders(cells, plan, server, seat):
        cells[plan.first + CHANGED] += 1


def dress(server: Server, books: SharedBooks) -> None:
    """A server that is about to join is as the words say; nobody has to hear of a change."""
    if admin := books.server_word(server, ADMIN):
        server.admin = _ADMIN_OF[admin]
        server.keep_sticky = admin == _KEEPS
    if health := books.server_word(server, HEALTH):
        server.health = _HEALTH_OF[health]
        server.down_reason = "" if server.health is not Health.DOWN else REFUSED if health == _REFUSED else _FAILED
    server.weight = max(0, books.server_word(server, WEIGHT) - 1)
    server.max_inflight = max(0, books.server_word(server, MAX_INFLIGHT) - 1)
    role = books.server_word(server, ROLE)
    server.backup, server.far = role & _IS_BACKUP != 0, role & _IS_FAR != 0
    _follow_rest(server, books)


def follow(pool: Pool, server: Server, books: SharedBooks, now: float) -> None:
    """Have this worker's server as the words say."""
    if admin := books.server_word(server, ADMIN):
        pool.set_admin(server, _ADMIN_OF[admin], _WHY, now, keep_sticky=admin == _KEEPS)
    if health := books.server_word(server, HEALTH):
        reason = REFUSED if health == _REFUSED else _FAILED
        pool.set_health(server, _HEALTH_OF[health], reason, _WHY, now)
    weight = books.server_word(server, WEIGHT) - 1
    if weight >= 0 and weight != server.weight:
        pool.set_weight(server, weight, now)
    limit = books.server_word(server, MAX_INFLIGHT) - 1
    if limit >= 0 and limit != server.max_inflight:
        pool.set_max_inflight(server, limit, now)
    if role := books.server_word(server, ROLE):
        backup, far = role & _IS_BACKUP != 0, role & _IS_FAR != 0
        if server.backup != backup:
            pool.set_backup(server, backup, now)
        if server.far != far:
            pool.set_far(server, far, now)
    _follow_rest(server, books)


def _follow_rest(server: Server, books: SharedBooks) -> None:
    if idle_ns := books.server_word(server, IDLE):
        server.idle_timeout.told(idle_ns / 1e9)
    if reuse := books.server_word(server, REUSE):
        server.reuse.limit = NO_LIMIT if reuse == _LIFTED else reuse
    cut_ns = books.server_word(server, CUT_AT)
    server.cut_at = cut_ns / 1e9 if cut_ns else inf
    server.was_up = server.was_up or books.server_word(server, WAS_UP) != 0
