"""The process that is to take over, as the supervisor of the running lbproxy starts it and speaks with it.

What is said is in upgrade/channel.py. The controller decides when there is an upgrade, and how long one may take; the
supervisor leads it, as it has the sockets, and lives on if the controller does not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from typing import Literal

from lbproxy import __version__
from lbproxy.control.status import Json
from lbproxy.process.outside import Outside
from lbproxy.process.upgrade import channel, handing
from lbproxy.process.upgrade.channel import Broken, Gone
from lbproxy.process.upgrade.command import command
from lbproxy.process.upgrade.handing import Offered
from lbproxy.process.upgrade.sockets import describe
from lbproxy.process.upgrade.starting import END_S, Failed, Patience, how_it_ended, problems_of, start
from lbproxy.process.upgrade.talk import Talk

Heard = Literal["", "ready", "serving", "stop"]


class Heir:
    """offered: the sockets. told: what else `sockets` says. Raises Failed."""

    def __init__(self, outside: Outside, offered: Offered, told: Mapping[str, object], now: float) -> None:
        self._late_at = now + handing.READY_S + END_S
        self._offered = offered
        self._told = told
        self._awaits: Literal["hello", "ready", "last", "serving", "stop"] = "hello"
        self._gone_at: float | None = None
        self._given_up: tuple[str, float] | None = None
        self._kill_at: float | None = None
        self._patience = Patience()
        self.version = "?"
        self.taken: frozenset[str] = frozenset()
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            raise Failed(f"there is no way to speak with another process: {error.strerror}") from None
        try:
            with theirs:
                self._process: subprocess.Popen[bytes] = start(
                    lambda: command(sys.orig_argv, sys.argv[0], os.environ),
                    {**os.environ, **outside.variables},
                    theirs.fileno(),
                    outside.pass_fds,
                    own_group=outside.keeper is not None,
                )
        except BaseException:
            ours.close()
            raise
        self.pid = self._process.pid
        self.process_pid = self._process.pid
        self._talk: Talk | None = Talk(ours)

    @property
    def talk(self) -> Talk | None:
        """To poll; None once nothing is to be heard any more."""
        return self._talk

    # --- the conversation -------------------------------------------------------------------------------------------

    def hear(self, now: float) -> Heard:
        """Go on with it, until there is nothing more to hear: "". "ready": it could serve, and waits for `go`.
        "serving": it does. "stop": it was told to stop, after that. Raises Failed."""
        talk = self._talk
        if talk is None:
            return ""
        heard: Heard = ""
        try:
            talk.flush()
            while not heard and (told := talk.hear()) is not None:
                heard = self._heard(told, talk)
            return heard
        except Gone:
            self._close()
            if self._awaits != "stop":
                self._gone_at = now
            return ""
        except Broken as error:
            raise Failed(f"the new process said what can't be understood: {error}") from None

    def _heard(self, told: Json, talk: Talk) -> Heard:
        match self._awaits, told["say"]:
            case "hello", "hello":
                self._greeted(told, talk)
            case "ready", "failed":
                raise problems_of(told)
            case "ready", "ready":
                taken = told.get("taken")
                self.taken = frozenset(map(str, taken)) if isinstance(taken, list) else frozenset()
                self._awaits = "last"
                return "ready"
            case "serving", "serving":
                self._awaits = "stop"
                return "serving"
            case "stop", "stop":
                return "stop"
            case awaited, word:
                raise Broken(f"{word} in place of {awaited}")
        return ""

    def _greeted(self, told: Json, talk: Talk) -> None:
        self.version = str(told.get("version"))
        if told.get("protocol") != channel.PROTOCOL:
            raise Failed(f"lbproxy {self.version} can't take over from {__version__}: restart instead")
        pid = told.get("pid")
        self.pid = pid if isinstance(pid, int) else self.pid
        fds, sockets = describe(self._offered)
        talk.say_sockets(fds, {**self._told, "sockets": sockets, "pid": os.getpid()})
        self._awaits = "ready"

    def go(self, states: object) -> None:
        """Serve, with these states. What it says next is heard. Raises Failed."""
        if self._awaits == "last" and self._talk is not None:
            self._awaits = "serving"
            try:
                self._talk.say("go", states=states)
            except Gone:
                return  # `hear` hears of it
            except Broken as error:
                raise Failed(str(error)) from None

    # --- its end ----------------------------------------------------------------------------------------------------

    @property
    def has_taken_over(self) -> bool:
        return self._awaits == "stop"

    @property
    def has_ended(self) -> bool:
        """Was it reaped?"""
        return self._process.returncode is not None

    @property
    def is_told(self) -> bool:
        """To serve."""
        return self._awaits in ("serving", "stop")

    def ended(self, status: int) -> None:
        """It was reaped. status: as of waitpid. Raises Failed if it has not taken over."""
        self.forget(status)
        self._close()
        if not self.has_taken_over:
            raise Failed(how_it_ended(os.waitstatus_to_exitcode(status)))

    def forget(self, status: int) -> None:
        """It was reaped, and was not wanted."""
        self._process.returncode = os.waitstatus_to_exitcode(status)  # or subprocess would wait for it

    def look(self, now: float) -> None:
        """Now and then. Raises Failed if it has closed its end, and does not end, or takes too long."""
        if self._gone_at is not None and now >= self._gone_at + END_S:
            self._gone_at = None
            raise Failed(how_it_ended(None))
        if self.has_taken_over:
            return
        if self._given_up is not None and now >= self._given_up[1]:
            raise Failed(self._given_up[0])
        if now >= self._late_at and self._given_up is None:  # the controller would have said it sooner
            self.give_up("the new process was not ready in time", now)

    def give_up(self, why: str, now: float) -> None:
        """It is not wanted any more, but may serve already: after a while `look` raises Failed, if it has not said so
        by then. Raises Failed at once if it was not told to serve."""
        if not self.is_told:
            raise Failed(why)
        self._given_up = self._given_up or (why, now + self._patience.word_s)

    def hurry(self, patience: Patience, now: float) -> None:
        """This process is about to end, and waits no longer than that for another one."""
        self._patience = patience
        if self._given_up is not None:
            why, late_at = self._given_up
            self._given_up = why, min(late_at, now + patience.word_s)
        if self._kill_at is not None:
            self._kill_at = min(self._kill_at, now + patience.end_s)

    @property
    def is_given_up(self) -> bool:
        return self._given_up is not None

    def stop(self) -> None:
        """It serves, and lbproxy was told to stop when nobody could know of it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def look_unwanted(self, now: float) -> None:
        """The same, once it is not wanted any more."""
        if self._kill_at is not None and now >= self._kill_at:
            self.kill()

    def break_off(self, why: str, now: float) -> None:
        """It is not wanted any more. Whoever hears only the end takes over, so this says it before."""
        if self._talk is not None:
            with contextlib.suppress(Gone, Broken):  # it is gone, or takes nothing: it is killed soon
                self._talk.say("abort", why=why)
            self._close()
        if self._process.returncode is None:
            self._kill_at = now + self._patience.end_s
            os.kill(self.process_pid, signal.SIGTERM)

    def kill(self) -> None:
        """At once."""
        self._kill_at = None
        if self._process.returncode is None:
            os.kill(self.process_pid, signal.SIGKILL)

    def leave_to_parent(self) -> None:
        """In a fork of this process, which has nothing to say."""
        self._close()

    def _close(self) -> None:
        if self._talk is not None:
            self._talk.close()
            self._talk = None
