"""The leases of one pool in shared memory: a row for each slot that somebody has or was granted.

To be called inside the pool's guard only.
"""

from __future__ import annotations

from lbproxy.compiling import i64
from lbproxy.domain.shared.cells import Cells, near
from lbproxy.domain.shared.plan import FREE_ROW, MAIL_WORDS, N_ROWS_USED, ROW_NEXT, ROW_SINCE, ROW_TICKET, Plan, packed


class Rows:
    """See the module."""

    __slots__ = ("_cells", "_plan")

    def __init__(self, cells: Cells, plan: Plan) -> None:
        self._cells = near(cells)
        self._plan = plan

    def take(self, state: i64, worker: i64, server: i64, ticket: i64, since_ns: i64) -> i64:
        """The number of a row that says so from now on; 0 if all are in use."""
        cells, plan = self._cells, self._plan
        row = cells[plan.first + FREE_ROW]
        if row:
            at = plan.row(row)
            cells[plan.first + FREE_ROW] = cells[at + ROW_NEXT]
        else:
            row = cells[plan.first + N_ROWS_USED] + 1
            if row > plan.n_rows:
                return 0
            cells[plan.first + N_ROWS_USED] = row
            at = plan.row(row)
        cells[at + ROW_TICKET] = ticket
        cells[at + ROW_SINCE] = since_ns
        cells[at] = packed(state, worker, server)
        return row

    def free(self, row: i64) -> None:
        """Nobody has that slot any more."""
        cells, first = self._cells, self._plan.first
        at = self._plan.row(row)
        cells[at] = 0
        cells[at + ROW_NEXT] = cells[first + FREE_ROW]
        cells[first + FREE_ROW] = row

    def word(self, row: i64) -> i64:
        """What the row is: see plan.py."""
        return self._cells[self._plan.row(row)]

    def ticket(self, row: i64) -> i64:
        """The number by which the row's worker knows the ticket that it was granted to."""
        return self._cells[self._plan.row(row) + ROW_TICKET]

    # --- what was granted and not taken up ---------------------------------------------------------------------------

    def post(self, worker: i64, row: i64) -> None:
        """Put a granted row where its worker finds it."""
        cells, plan = self._cells, self._plan
        mail = plan.mail + MAIL_WORDS * worker
        cells[plan.row(row) + ROW_NEXT] = 0
        last = cells[mail + 1]
        if last:
            cells[plan.row(last) + ROW_NEXT] = row
        else:
            cells[mail] = row
        cells[mail + 1] = row

    def next_mail(self, worker: i64) -> i64:
        """The oldest row that was granted to this worker, which is its alone now; 0 if there is none."""
        cells, plan = self._cells, self._plan
        mail = plan.mail + MAIL_WORDS * worker
        row = cells[mail]
        if row:
            following = cells[plan.row(row) + ROW_NEXT]
            cells[mail] = following
            if not following:
                cells[mail + 1] = 0
        return row
