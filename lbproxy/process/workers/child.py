"""A process that the supervisor has forked, and when it is forked again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from lbproxy.process.workers.board import name_of
from lbproxy.process.workers.lines import Line
from lbproxy.process.workers.stuck import Watch

LIVED_S: Final = 10.0
"""Whoever lived so long did not die of its start."""
FIRST_DELAY_S: Final = 0.1
MOST_DELAY_S: Final = 5.0


@dataclass(slots=True)
class Child:
    """number: see Board. pid 0: it does not run. due_at: when it is forked (again), monotonic seconds, None: it is not.
    said: how far it has come, as it said itself; "told": it waited to be told to serve, and was. failure: why it
    could not start, with the exit status, as it said itself."""

    number: int
    pid: int = 0
    line: Line | None = None
    due_at: float | None = None
    started_at: float = 0.0
    said: Literal["", "prepared", "updated", "told", "serving"] = ""
    failure: tuple[int, str] | None = None
    watch: Watch = field(default_factory=Watch)
    n_short: int = 0

    @property
    def name(self) -> str:
        return name_of(self.number)

    @property
    def serves(self) -> bool:
        return self.said == "serving"

    def started(self, pid: int, line: Line, now: float) -> None:
        self.pid, self.line, self.started_at, self.due_at = pid, line, now, None
        self.said, self.failure, self.watch = "", None, Watch()

    def ended(self) -> None:
        self.pid = 0
        if self.line is not None:
            self.line.close()
        self.line = None

    def delay_s(self, now: float) -> float:
        """How long to wait after an end, seconds: not at all at first; longer and longer for one that dies soon after
        each start."""
        self.n_short = 0 if self.serves and now - self.started_at >= LIVED_S else self.n_short + 1
        return 0.0 if self.n_short <= 1 else min(MOST_DELAY_S, FIRST_DELAY_S * 2 ** (self.n_short - 2))
