"""The retry budget of a pool whose servers several workers use: it acts on the sums of all.

What is in progress is counted by worker, so that what a dead one had ends with it. What was ever begun and asked is
counted up by worker and by those that had its number before, and the window of ten seconds is what it grew by since
then. A permit is taken inside the guard, so no two workers take the last one.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final

from lbproxy.domain.retry import BUDGET_WINDOW_S, RetryBudget
from lbproxy.domain.shared.books import SharedBooks
from lbproxy.domain.shared.plan import REQUESTED, RETRIED, RETRYING

_STEP_S: Final = BUDGET_WINDOW_S / 100


class SharedBudget(RetryBudget):
    """See RetryBudget: `requests_total` is not looked at but for None, since the books know it of all workers."""

    __slots__ = ("_books", "_told", "_window")

    def __init__(self, books: SharedBooks, ratio: float = 0.2, min_: int = 3) -> None:
        super().__init__(ratio, min_)
        self._books = books
        self._told = 0  # of the requests that this worker ended, those that the others know
        # (when, retries begun, requests ended): before all that this worker has seen, they were as many as now
        self._window: deque[tuple[float, int, int]] = deque([(-inf, *self._sums())])

    def _sums(self) -> tuple[int, int]:
        books = self._books
        begun = ended = 0
        for worker in range(books.n_workers):
            begun += books.worker_word(worker, RETRIED)
            ended += books.worker_word(worker, REQUESTED)
        return begun, ended

    def may_start(self, active_requests: int, *, requests_total: int | None = None, now: float = 0.0) -> bool:
        """See RetryBudget. active_requests: of all workers."""
        books = self._books
        books.enter(now)
        try:
            self.note(0, now)
            active = 0
            for worker in range(books.n_workers):
                active += books.worker_word(worker, RETRYING)
            begun, ended = self._sums()
            _, begun_before, ended_before = self._window[0]
            # Each retry ends as a request, too; the ratio is one of first attempts.
            first = (ended - begun) - (ended_before - begun_before)
            most = max(self.at_least * BUDGET_WINDOW_S, self.ratio * first)
            if active >= max(self.at_least, self.ratio * active_requests):
                return False
            if requests_total is not None and begun - begun_before >= most:
                return False
            self.active += 1
            self.n_started += 1
            books.set_worker_word(RETRYING, self.active)
            books.set_worker_word(RETRIED, books.worker_word(books.worker, RETRIED) + 1)
            return True
        finally:
            books.leave()

    def finished(self) -> None:
        """See RetryBudget."""
        super().finished()
        self._books.set_worker_word(RETRYING, self.active)

    def note(self, requests_total: int, now: float) -> None:
        """See RetryBudget; and the others know of this worker's requests from now on."""
        books = self._books
        grown = books.n_ended - self._told
        if grown:
            self._told = books.n_ended
            books.set_worker_word(REQUESTED, books.worker_word(books.worker, REQUESTED) + grown)
        window = self._window
        while len(window) > 1 and window[1][0] <= now - BUDGET_WINDOW_S:
            window.popleft()
        if now - window[-1][0] >= _STEP_S:
            window.append((now, *self._sums()))
