"""An upgrade as the supervisor of the running lbproxy makes it: one heir at a time, and those that are not wanted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from lbproxy.control.status import Json
from lbproxy.process.outside import Outside
from lbproxy.process.upgrade.starting import Failed, Patience
from lbproxy.process.workers.heir import Heir
from lbproxy.process.workers.stock import Stock

log = logging.getLogger("lbproxy")


class PassingOn:
    """tell: the controller a word, and more. handed_over: the heir serves. stops: it was told to stop, after that."""

    def __init__(
        self,
        outside: Outside,
        stock: Stock,
        tell: Callable[[str, object], None],
        handed_over: Callable[[Heir], None],
        stops: Callable[[Heir], None],
    ) -> None:
        self._outside = outside
        self._stock = stock
        self._tell = tell
        self._handed_over = handed_over
        self._stops = stops
        self._unwanted: list[Heir] = []
        self.heir: Heir | None = None

    def begin(self, told: Json, *, can_be: bool) -> None:
        """Start the program. told: what it hears with the sockets. can_be: does this lbproxy serve?"""
        try:
            if not can_be or self.heir is not None:
                raise Failed("lbproxy is stopping, or another process takes over already")
            self.heir = Heir(self._outside, self._stock.offered(), told, time.monotonic())
        except Failed as error:
            self._no_upgrade(error)

    def go(self, states: object) -> None:
        """It is to serve, with these states."""
        if self.heir is not None:
            try:
                self.heir.go(states)
            except Failed as error:
                self._no_upgrade(error)

    def hear(self) -> None:
        """What it says."""
        while self.heir is not None:
            try:
                heard = self.heir.hear(time.monotonic())
            except Failed as error:
                self._no_upgrade(error)
                return
            match heard:
                case "":
                    return
                case "ready":
                    self._tell("last", None)
                case "serving":
                    self._handed_over(self.heir)
                case "stop":
                    self._stops(self.heir)

    def look(self, now: float) -> None:
        """Now and then."""
        for unwanted in self._unwanted:
            unwanted.look_unwanted(now)
        if self.heir is not None:
            try:
                self.heir.look(now)
            except Failed as error:
                self._no_upgrade(error)

    # --- how it ends ------------------------------------------------------------------------------------------------

    def _no_upgrade(self, error: Failed) -> None:
        """It can't take over: this lbproxy goes on as before."""
        self._break_off(str(error))
        self._tell("no-upgrade", error.problems)

    def break_off(self, why: str) -> None:
        """It is not wanted any more, unless it serves already. If it was told to, what it says is waited for."""
        if self.heir is not None and not self.heir.has_taken_over:
            try:
                self.heir.give_up(why, time.monotonic())
            except Failed:
                self._break_off(why)

    def stop(self, grace: float) -> None:
        """The same, as this lbproxy was told to stop: all is to be over in so many seconds."""
        now, patience = time.monotonic(), Patience.of_a_stop(grace)
        for heir in (self.heir, *self._unwanted):
            if heir is not None:
                heir.hurry(patience, now)
        self.break_off("lbproxy was told to stop")

    @property
    def is_in_doubt(self) -> bool:
        """Is there an heir that is not wanted any more, and may serve all the same?"""
        return self.heir is not None and self.heir.is_given_up and not self.heir.has_taken_over

    @property
    def is_ending(self) -> bool:
        """Is there still one that is not wanted any more? It has our sockets, too, and accepts nobody."""
        return self.is_in_doubt or bool(self._unwanted)

    def _break_off(self, why: str) -> None:
        if self.heir is None or self.heir.has_taken_over:
            return
        heir, self.heir = self.heir, None
        heir.break_off(why, time.monotonic())
        if not heir.has_ended:
            self._unwanted.append(heir)
        self._outside.take_back()

    def controller_ended(self) -> None:
        """Nobody can say the last that is known of servers any more. Who was told that goes on."""
        if self.heir is not None and not self.heir.is_told:
            why = "the controller of the old process is gone"
            log.warning("no upgrade, this process goes on: %s", why)
            self.break_off(why)

    def ended(self, pid: int, status: int) -> None:
        """A process was reaped, which may be one of these."""
        if self._outside.keeper is not None:
            self._outside.keeper.ended(pid, status)
        for unwanted in [item for item in self._unwanted if item.process_pid == pid]:
            self._unwanted.remove(unwanted)
            unwanted.forget(status)
        if self.heir is not None and self.heir.process_pid == pid:
            self.hear()
        if self.heir is not None and self.heir.process_pid == pid:
            try:
                self.heir.ended(status)
            except Failed as error:
                self._no_upgrade(error)

    def end(self) -> None:
        """This process ends."""
        self._break_off("lbproxy was told to stop")
        for unwanted in self._unwanted:
            unwanted.kill()

    def leave_to_parent(self) -> None:
        """In a fork of this process."""
        for heir in (self.heir, *self._unwanted):
            if heir is not None:
                heir.leave_to_parent()
