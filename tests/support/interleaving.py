"""Workers that take turns at every step which others can notice, in an order that is chosen: so that all orders can be
tried, and each of them can die at each of its steps.

A worker is a greenlet. A step is an access to the shared cells (`Area`), a way in or out of the lock (`Lock`) or a call
of `Schedule.step`. `explore` runs a world again and again, each time with another choice at one of its forks, until it
has had all that differ from going straight on in at most so many places.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import overload

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]

from lbproxy.domain.shared.cells import Guard


class Killed(BaseException):
    """What a worker feels that is killed. It runs what stands in `finally`, of which nobody sees anything."""


class Stuck(AssertionError):
    """Nobody can go on, or they never come to an end."""


class Actor:
    """One worker. dies_at: the number of the step that it does not live to do, from 1 on; 0: it lives."""

    def __init__(self, name: str, body: Callable[[], None], dies_at: int = 0) -> None:
        self.name = name
        self.dies_at = dies_at
        self.n_steps = 0
        self.is_dead = False
        self.is_over = False
        self.may_go: Callable[[], bool] = lambda: True
        self.fiber = greenlet(lambda: self._live(body))

    def _live(self, body: Callable[[], None]) -> None:
        with contextlib.suppress(Killed):
            body()
        self.is_over = True


class Schedule:
    """choices: which of those who can go on does, at each fork; 0, going on with who was at it, when they are used up.

    forks: how many there were to choose from, at each fork of this run. is_fine: may others act between any two
    accesses to cells, and not only where somebody enters or leaves?
    """

    LONGEST = 20_000

    def __init__(self, choices: Sequence[int] = (), *, is_fine: bool = False) -> None:
        self.choices = list(choices)
        self.forks: list[int] = []
        self.is_fine = is_fine
        self.actors: list[Actor] = []
        self.died: Callable[[Actor], None] = lambda actor: None
        self.now = 1.0
        self._hub = getcurrent()

    def run(self) -> None:
        """Until everybody is over, or waits for nobody who comes."""
        current: Actor | None = None
        for _ in range(self.LONGEST):
            ready = [actor for actor in self.actors if not actor.is_over and (actor.is_dead or actor.may_go())]
            if not ready:
                return
            if current in ready:
                ready.remove(current)
                ready.insert(0, current)
            current = ready[self._choose(len(ready))]
            self.now += 0.001
            current.fiber.switch()
            if current.is_over and current.is_dead:
                self.died(current)
        raise Stuck("they go on for ever")

    def _choose(self, number: int) -> int:
        if number == 1:
            return 0
        at = len(self.forks)
        self.forks.append(number)
        return self.choices[at] % number if at < len(self.choices) else 0

    @property
    def actor(self) -> Actor | None:
        """Who is at it; None outside of `run`."""
        fiber = getcurrent()
        return next((actor for actor in self.actors if actor.fiber is fiber), None)

    def step(self, *, is_fork: bool = True) -> bool:
        """Something that others will notice is about to be done. False: not any more, as who does it is dead."""
        actor = self.actor
        if actor is None:
            return True
        if actor.is_dead:
            return False
        actor.n_steps += 1
        if actor.n_steps == actor.dies_at:
            actor.is_dead = True
            raise Killed
        if is_fork:
            self._hub.switch()
        return True

    def wait(self, condition: Callable[[], bool]) -> None:
        """Let others act until the condition holds."""
        actor = self.actor
        if actor is not None and not actor.is_dead and not condition():
            actor.may_go = condition
            self._hub.switch()
            actor.may_go = lambda: True


class Area:
    """Shared cells. Reads are forks in a fine schedule only, as no one can notice them; nor do they end anybody."""

    def __init__(self, schedule: Schedule, size: int) -> None:
        self._schedule = schedule
        self.cells = [0] * size

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[int]: ...
    def __getitem__(self, at: int | slice) -> int | Sequence[int]:
        if self._schedule.is_fine:
            self._schedule.step()
        return self.cells[at]

    def __setitem__(self, at: int, value: int) -> None:
        if self._schedule.step(is_fork=self._schedule.is_fine):
            self.cells[at] = value


class Lock(Guard):
    """left: called while others are still locked out."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._owner: Actor | None = None
        self._is_held = False
        self.left: Callable[[], None] = lambda: None

    def enter(self) -> bool:
        schedule = self._schedule
        schedule.step()
        schedule.wait(lambda: not self._is_held or (self._owner is not None and self._owner.is_dead))
        is_torn = self._is_held
        self._is_held, self._owner = True, schedule.actor
        schedule.step(is_fork=False)
        return is_torn

    def leave(self) -> None:
        schedule = self._schedule
        if schedule.step(is_fork=False):
            self._is_held = False
            self.left()
            schedule.step()


class NoLock(Guard):
    """What must not be: everybody gets in."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def enter(self) -> bool:
        self._schedule.step()
        return False

    def leave(self) -> None:
        self._schedule.step()


def explore(run: Callable[[Sequence[int]], Schedule], most_detours: int, most_runs: int) -> Iterator[Schedule]:
    """All runs with at most so many choices that are not 0, depth first, but not more than so many runs."""
    todo: list[tuple[int, ...]] = [()]
    for _ in range(most_runs):
        if not todo:
            return
        choices = todo.pop()
        done = run(choices)
        yield done
        if sum(choice != 0 for choice in choices) < most_detours:
            for at in range(len(choices), len(done.forks)):
                todo += [(*choices, *([0] * (at - len(choices))), other) for other in range(1, done.forks[at])]
