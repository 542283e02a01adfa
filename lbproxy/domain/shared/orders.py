"""What the controller says of servers, as words that all workers read.

Only the controller writes them, each at once, and then counts CHANGED up; a worker that sees it changed reads all of
them. So it may see half of an order for a moment, and the whole at the next count. 0 says nothing: the config holds.
"""

from __future__ import annotations

from typing import Final

from lbproxy.domain.pool import Pool
from lbproxy.domain.server import Server
from lbproxy.domain.shared.books import SharedBooks
from lbproxy.domain.shared.cells import Cells
from lbproxy.domain.shared.plan import ADMIN, CHANGED, HEALTH, IDLE, MAX_INFLIGHT, WEIGHT, Plan
from lbproxy.domain.states import REFUSED, Admin, Health

_ADMINS: Final = {admin: number for number, admin in enumerate(Admin, 1)}
_HEALTHS: Final = {health: number for number, health in enumerate(Health, 1)}
_REFUSED: Final = 5  # down, because the kernel of the server said so
_ADMIN_OF: Final = {number: admin for admin, number in _ADMINS.items()}
_HEALTH_OF: Final = {**{number: health for health, number in _HEALTHS.items()}, _REFUSED: Health.DOWN}
_FAILED: Final = "checks"
_WHY: Final = "as the controller says"


def tell(cells: Cells, plan: Plan, server: Server, seat: int) -> None:
    """Let all workers have this server as the controller has it."""
    health = _HEALTHS[server.health]
    if server.health is Health.DOWN and server.down_reason == REFUSED:
        health = _REFUSED
    at = plan.server(seat)
    cells[at + ADMIN] = _ADMINS[server.admin]
    cells[at + HEALTH] = health
    cells[at + WEIGHT] = server.weight + 1
    cells[at + MAX_INFLIGHT] = server.max_inflight + 1
    cells[at + IDLE] = int(server.idle_timeout.learned_s * 1e9)
    cells[plan.first + CHANGED] += 1


def follow(pool: Pool, server: Server, books: SharedBooks, now: float) -> None:
    """Have this worker's server as the words say."""
    if admin := books.server_word(server, ADMIN):
        pool.set_admin(server, _ADMIN_OF[admin], _WHY, now)
    if health := books.server_word(server, HEALTH):
        reason = REFUSED if health == _REFUSED else _FAILED
        pool.set_health(server, _HEALTH_OF[health], reason, _WHY, now)
    weight = books.server_word(server, WEIGHT) - 1
    if weight >= 0 and weight != server.weight:
        pool.set_weight(server, weight, now)
    limit = books.server_word(server, MAX_INFLIGHT) - 1
    if limit >= 0 and limit != server.max_inflight:
        pool.set_max_inflight(server, limit, now)
    if idle_ns := books.server_word(server, IDLE):
        server.idle_timeout.learned_s = idle_ns / 1e9
