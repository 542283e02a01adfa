"""The lbproxy whose work this one takes over, as the supervisor of the new one speaks with it (upgrade/arriving.py)."""

from __future__ import annotations

import logging
import os

from lbproxy import __version__
from lbproxy.process.upgrade.arriving import Arrival, NotWanted
from lbproxy.process.upgrade.channel import Broken, Gone
from lbproxy.process.upgrade.talk import Talk

log = logging.getLogger("lbproxy")


class Before:
    """See the module."""

    def __init__(self, arrival: Arrival) -> None:
        self._arrival = arrival
        self._talk: Talk | None = None
        self._answered = False
        self._is_over = False

    @property
    def talk(self) -> Talk | None:
        """To poll; None before `ready`, and once nothing is to be heard any more."""
        return self._talk

    @property
    def is_there(self) -> bool:
        """Does it still finish something, as far as is known?"""
        return not self._is_over

    def ready(self) -> None:
        """Everything is there: this lbproxy could serve. `hear` says what comes of it."""
        self._talk = self._arrival.talk()
        self._say("ready", taken=self._arrival.inherited.taken)

    def hear(self) -> tuple[object] | None:
        """What it says to `ready`, once: the states as they are by then, None if it is gone. Nothing else is heard of
        it but its end. Raises NotWanted."""
        if self._answered and self._is_over:
            return None
        try:
            if self._talk is None:
                raise Gone
            self._talk.flush()
            told = self._talk.hear()
        except Broken as error:
            if self._answered:
                self._close()
                return None
            raise NotWanted(f"the process {self._arrival.old_pid} goes on itself: {error}") from None
        except Gone:
            self._close()
            if self._answered:
                return None
            self._answered = True
            log.warning(
                "the process %s, which was to hand over, is gone: this one goes on by itself", self._arrival.old_pid
            )
            return (None,)
        if told is None or self._answered:
            return None
        if told["say"] != "go":
            why = told.get("why", told["say"])
            raise NotWanted(f"the process {self._arrival.old_pid} goes on itself: {why}")
        self._answered = True
        return (told.get("states"),)

    def serving(self) -> None:
        """This lbproxy accepts."""
        self._say("serving", pid=os.getpid(), version=__version__)

    def stop(self) -> None:
        """This lbproxy ends: so should the one before, if it is still there."""
        self._say("stop")

    def _say(self, word: str, **told: object) -> None:
        if self._talk is not None:
            try:
                self._talk.say(word, **told)
            except Gone:
                self._close()

    def leave_to_parent(self) -> None:
        """In a fork of this process, which has nothing to say."""
        self._arrival.leave_to_parent()

    def _close(self) -> None:
        self._is_over = True
        if self._talk is not None:
            self._talk.close()
            self._talk = None
