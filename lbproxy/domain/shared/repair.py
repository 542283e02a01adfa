"""The books of a pool made anew from what is certainly true in them (domain/shared/plan.py), in one pass.

Needed when a worker is dead, and when somebody died while at the books. Whoever does this may die of it too: the next
one begins again from the same truth. To be called inside the pool's guard only.

Somebody may die between two steps that make one: a ticket was granted a row, and still has its place. Then the row
holds, so that nobody gets two.
"""

from __future__ import annotations

from typing import Final

from lbproxy.domain.shared.cells import Cells
from lbproxy.domain.shared.plan import (
    CROWDED,
    FIRST,
    FREE_PLACE,
    FREE_ROW,
    GRANTED,
    JUDGED,
    LAST,
    MAIL_WORDS,
    N_PLACES_USED,
    N_ROWS_USED,
    N_WAITING,
    PLACE_ARRIVED,
    PLACE_BEFORE,
    PLACE_EXPIRES,
    PLACE_FLOW,
    PLACE_NEXT,
    PLACE_RANK,
    PLACE_SERIAL,
    PLACE_TICKET,
    RETRYING,
    ROW_NEXT,
    ROW_SINCE,
    ROW_TICKET,
    USES_POOL,
    VERDICTS,
    Plan,
    server_of,
    state_of,
    worker_of,
)
from lbproxy.domain.shared.turns import SharedTurns

NOBODY: Final = -1


def repair(cells: Cells, plan: Plan, dead: int = NOBODY) -> None:
    """Make the books whole. dead: a worker whose requests, places and grants end with it."""
    for seat in range(plan.n_servers):
        if dead != NOBODY:
            server = plan.server(seat)
            cells[plan.loose(seat, dead)] = 0
            if cells[plan.permits(seat) + dead]:
                cells[plan.permits(seat) + dead] = 0
                cells[server + JUDGED] += 1
                cells[plan.first + VERDICTS] += 1
            cells[plan.uses(seat) + dead] = 0
        cells[plan.count(seat)] = 0
    if dead != NOBODY:
        cells[plan.worker(dead) + RETRYING] = 0
        cells[plan.worker(dead) + USES_POOL] = 0
    granted = _settle_rows(cells, plan, dead)
    _settle_line(cells, plan, dead, granted)


def _settle_rows(cells: Cells, plan: Plan, dead: int) -> set[tuple[int, int]]:
    """Returns (worker, ticket) of all that have a row."""
    has_row: set[tuple[int, int]] = set()
    mail: list[tuple[int, int, int]] = []
    free = 0
    for row in range(min(cells[plan.first + N_ROWS_USED], plan.n_rows), 0, -1):
        at = plan.row(row)
        word = cells[at]
        if word and worker_of(word) == dead:
            cells[at] = word = 0
        if not word:
            cells[at + ROW_NEXT] = free
            free = row
            continue
        cells[plan.count(server_of(word))] += 1
        has_row.add((worker_of(word), cells[at + ROW_TICKET]))
        if state_of(word) == GRANTED:
            mail.append((worker_of(word), cells[at + ROW_SINCE], row))
    cells[plan.first + FREE_ROW] = free
    ends = [0] * (MAIL_WORDS * plan.n_workers)
    for worker, _, row in sorted(mail):
        cells[plan.row(row) + ROW_NEXT] = 0
        if ends[MAIL_WORDS * worker]:
            cells[plan.row(ends[MAIL_WORDS * worker + 1]) + ROW_NEXT] = row
        else:
            ends[MAIL_WORDS * worker] = row
        ends[MAIL_WORDS * worker + 1] = row
    for number, row in enumerate(ends):
        cells[plan.mail + number] = row
    return has_row


def _settle_line(cells: Cells, plan: Plan, dead: int, has_row: set[tuple[int, int]]) -> None:
    waiting: list[tuple[int, int, int]] = []
    free = 0
    for worker in range(plan.n_workers):
        cells[plan.worker(worker) + CROWDED] = 0
    for place in range(min(cells[plan.first + N_PLACES_USED], plan.n_places), 0, -1):
        at = plan.place(place)
        worker = cells[at] - 1
        if worker >= 0 and (worker == dead or (worker, cells[at + PLACE_TICKET]) in has_row):
            cells[at] = 0
            worker = -1
        if worker >= 0 and not cells[at + PLACE_EXPIRES]:
            cells[at + PLACE_FLOW] = 0
            cells[at + PLACE_NEXT] = cells[plan.worker(worker) + CROWDED]
            cells[plan.worker(worker) + CROWDED] = place
        elif worker >= 0:
            waiting.append((cells[at + PLACE_SERIAL], cells[at + PLACE_ARRIVED], place))
        else:
            cells[at + PLACE_NEXT] = free
            free = place
    cells[plan.first + FREE_PLACE] = free
    waiting.sort()
    before = 0
    for number, (_, _, place) in enumerate(waiting):
        at = plan.place(place)
        cells[at + PLACE_BEFORE] = before
        cells[at + PLACE_NEXT] = waiting[number + 1][2] if number + 1 < len(waiting) else 0
        before = place
    cells[plan.first + FIRST] = waiting[0][2] if waiting else 0
    cells[plan.first + LAST] = before
    cells[plan.first + N_WAITING] = len(waiting)
    turns = SharedTurns(cells, plan)
    turns.forget_all()
    for _, _, place in waiting:
        at = plan.place(place)
        cells[at + PLACE_FLOW] = 0
        if cells[at + PLACE_RANK]:
            turns.add(place)
