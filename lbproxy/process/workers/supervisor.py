"""The process that the user sees where there are several: it forks a controller and workers, and sees to them.

It has no event loop and no threads, so it can fork at any time, and reads nothing from the network. It keeps the
listening sockets, so that clients in the kernel's queues wait for the successor of a worker that died. What every
process shares it makes before the first fork.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Final, Literal

from lbproxy import __version__
from lbproxy.config.loader import Kept
from lbproxy.config.model import Config
from lbproxy.config.problems import Unusable
from lbproxy.dataplane.listener import BindError
from lbproxy.process.building import TlsParts, common_tls
from lbproxy.process.first_words import first_lines
from lbproxy.process.outside import Outside
from lbproxy.process.upgrade.arriving import NotWanted
from lbproxy.process.worker import StartError
from lbproxy.process.workers.before import Before
from lbproxy.process.workers.board import CONTROLLER, Board
from lbproxy.process.workers.child import HEARD, Child, introduce
from lbproxy.process.workers.forking import become
from lbproxy.process.workers.heir import Heir
from lbproxy.process.workers.lines import Gone, Line, Said
from lbproxy.process.workers.neighbours import Mailbox, mailbox
from lbproxy.process.workers.passing_on import PassingOn
from lbproxy.process.workers.share import Share, ShareError
from lbproxy.process.workers.signals import Signals
from lbproxy.process.workers.sockets import Door
from lbproxy.process.workers.station import Setup, close_all
from lbproxy.process.workers.stock import Stock
from lbproxy.process.workers.watchdog import LOOK_S, Watchdog
from lbproxy.telemetry import log as operator_log

log = logging.getLogger("lbproxy")

RETRY_S: Final = 1.0  # when there was no memory or no descriptor for a process
OVERTIME_S: Final = 10.0  # after the grace, for what a worker still has to write
Phase = Literal["starting", "ready", "going", "serving", "leaving", "stopping"]
"""ready, going: only when it takes over from another lbproxy: it could serve; it was told to, and begins. leaving:
another one has taken over, and what is in flight is finished."""


class Supervisor:
    """`run` returns the exit status. n_workers: 2 or more."""

    def __init__(
        self,
        config: Config,
        shown: Callable[[Unusable], str],
        config_path: str,
        kept: Kept | None,
        outside: Outside,
        n_workers: int,
    ) -> None:
        self._config = config
        self._shown = shown
        self._config_path = config_path
        self._kept = kept
        self._outside = outside
        self._generation = 1
        self._phase: Phase = "starting"
        self._status = 0
        self._signals = Signals()
        self._stock = Stock(n_workers)
        self._before = None if outside.arrival is None else Before(outside.arrival)
        self._passing_on = PassingOn(outside, self._stock, self._say_to_controller, self._hand_over, self._heir_stops)
        self._known: object = None if outside.arrival is None else outside.arrival.states
        self._tls: TlsParts | None = None
        self._mailboxes: tuple[Mailbox, ...] = ()
        self._children = [Child(number) for number in range(n_workers + 1)]
        self._watchdog = Watchdog()
        self._feed_at: float | None = None
        self._kill_at: float | None = None
        self._has_to_tell = False
        self._owes_reload = False  # SIGHUP came when there was no controller
        self._told_at = 0.0
        self._board: Board
        self._share: Share

    # --- life -------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Until everything has ended. Raises StartError."""
        for line in first_lines(self._config, self._config_path, __version__, os.getpid()):
            log.info("%s", line)
        self._signals.listen(HEARD)
        try:
            self._make()
            for child in self._children:
                child.due_at = 0.0
            while not self._is_over():
                self._turn()
        except BaseException:
            self._end_all()
            raise
        finally:
            self._stock.close()
            self._stock.remove_files()
            for end in (end for pair in self._mailboxes for end in pair):
                end.close()
            self._passing_on.end()
        if self._outside.keeper is not None and self._outside.is_over:
            self._outside.keeper.hold_signals_now()
            for number in self._signals.take():
                self._outside.pass_on(number)
        log.log(
            logging.WARNING if self._status else logging.INFO,
            "stopped; %s",
            "some requests or connections were cut" if self._status else "nothing was cut",
        )
        return self._status

    def _make(self) -> None:
        """All that the processes have in common. Raises StartError."""
        config = self._config
        try:
            self._stock.open(config, self._outside)
            self._board = Board(len(self._children) - 1)
            self._share = Share(config, len(self._children) - 1)
            self._mailboxes = tuple(mailbox() for _ in self._children[1:])
            self._tls = common_tls(config, self._config_path)
        except Unusable as error:
            raise StartError(self._shown(error), 2) from None
        except (ValueError, ShareError, BindError, OSError) as cannot:
            raise StartError(str(cannot)) from None
        gc.collect()
        gc.freeze()  # what is there now is shared with all that are forked, as long as nobody writes to it

    def _is_over(self) -> bool:
        is_ending = self._phase in ("leaving", "stopping")
        return is_ending and not any(child.pid for child in self._children) and not self._passing_on.is_in_doubt

    def _turn(self) -> None:
        """Wait for something to happen, and see to it."""
        now = time.monotonic()
        self._fork_due(now)
        self._wait(now)
        for number in () if self._phase == "going" else self._signals.take():
            self._signalled(number)
        for child in self._children:
            self._hear(child)
        self._hear_before()
        self._passing_on.hear()
        self._reap()
        self._tell_to_stop()
        self._look(time.monotonic())

    def _wait(self, now: float) -> None:
        poll = select.poll()
        if self._phase != "going":  # which is over soon
            poll.register(self._signals, select.POLLIN)
        for end in (self._before, self._passing_on.heir):
            if end is not None and end.talk is not None:
                poll.register(end.talk, end.talk.events)
        for child in self._children:
            if child.line is not None:
                poll.register(child.line.fileno(), select.POLLIN)
        due = [child.due_at for child in self._children if child.due_at is not None]
        until = min([now + LOOK_S, *due])
        poll.poll(max(0.0, until - now) * 1000)

    # --- children ---------------------------------------------------------------------------------------------------

    def _fork_due(self, now: float) -> None:
        for child in self._children:
            if child.due_at is not None and child.due_at <= now:
                try:
                    self._start(child, now)
                except OSError as error:
                    if self._phase == "starting":
                        raise StartError(f"the {child.name} can't be started: {error.strerror}") from None
                    log.error("the %s can't be started: %s; again in %g s", child.name, error.strerror, RETRY_S)
                    child.due_at = now + RETRY_S

    def _start(self, child: Child, now: float) -> None:
        ours, theirs = Line.pair()
        setup = Setup(
            child.number,
            self._config,
            self._config_path,
            self._shown,
            theirs,
            self._board,
            self._share,
            self._generation,
            self._kept,
            tls=self._tls,
            known=self._known,
            is_first=self._phase == "starting",
            waits=self._waits(child),
            mailboxes=self._mailboxes,
        )
        if setup.waits and self._outside.arrival is not None:
            setup.was_ready, setup.counts = self._outside.arrival.was_ready, tuple(self._outside.arrival.counts)
        supervisor = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if not pid:
            become(
                child,
                setup,
                self._stock,
                supervisor=supervisor,
                others=(ours, *(item.line for item in self._children)),
                leave_to_parent=self._leave_to_parent,
            )
        theirs.close()
        child.started(pid, ours, now)
        self._board.started(child.number, pid, now)
        if child.number == CONTROLLER:
            for worker in self._children[1:]:
                self._introduce(worker)
        else:
            self._introduce(child)

    def _introduce(self, worker: Child) -> None:
        try:
            introduce(worker, self._children[CONTROLLER])
        except OSError as error:
            log.error("the controller and the %s can't speak to each other: %s", worker.name, error.strerror)

    def _leave_to_parent(self) -> None:
        """In a new process: what is the supervisor's alone."""
        self._signals.leave_to_parent()
        self._outside.leave_to_parent()
        self._passing_on.leave_to_parent()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for child in self._children:
                if child.pid == pid:
                    self._hear(child)
                    self._ended(child, os.waitstatus_to_exitcode(status))
            self._passing_on.ended(pid, status)

    def _ended(self, child: Child, status: int) -> None:
        now = time.monotonic()
        pid = child.pid
        child.ended()
        self._board.ended(child.number)
        if child.number == CONTROLLER:
            self._share.bury_controller()
            self._drop_sockets()
        else:
            self._share.bury(child.number - 1, self._holds_up)
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        if self._phase in ("starting", "ready"):
            code, text = child.failure or (1, f"the {child.name} {how}")
            raise StartError(text, code)
        if self._phase in ("leaving", "stopping"):
            if status:
                self._status = 1
            if status < 0:
                log.warning("the %s (%d) %s", child.name, pid, how)
            return
        delay_s = child.delay_s(now)
        why = f": {child.failure[1]}" if child.failure is not None else ""
        log.error("the %s (%d) %s%s; another one starts in %.1f s", child.name, pid, how, why, delay_s)
        self._board.restarted(child.number)
        child.due_at = now + delay_s
        if child.number == CONTROLLER:
            self._passing_on.controller_ended()

    def _holds_up(self, worker: int) -> None:
        """A worker was stopped while it had a lock, and the books of a dead one wait for that."""
        child = self._children[worker + 1]
        if child.pid:
            log.error("the %s (%d) does not let go of what others need: it is killed", child.name, child.pid)
            os.kill(child.pid, signal.SIGKILL)

    def _look(self, now: float) -> None:
        """Kill who is stuck, and whoever has had its time."""
        self._feed(now)
        if not self._watchdog.is_due(now):
            return
        self._passing_on.look(now)
        if self._phase == "leaving" and self._outside.is_deserted:
            log.warning("the process that took over is gone: this one stops")
            self._finish()
        is_late = self._kill_at is not None and now >= self._kill_at
        self._watchdog.look(self._children, self._board, now, is_late=is_late)

    def _end_all(self) -> None:
        """The start has failed: nobody serves yet."""
        for child in self._children:
            if child.pid:
                os.kill(child.pid, signal.SIGKILL)
        for child in self._children:
            if child.pid:
                os.waitpid(child.pid, 0)
                child.ended()

    # --- what children say ------------------------------------------------------------------------------------------

    def _hear(self, child: Child) -> None:
        try:
            while child.line is not None and (said := child.line.hear()) is not None:
                self._said(child, said)
        except Gone:
            if child.line is not None:
                child.line.close()
                child.line = None  # it ends, or has ended

    def _said(self, child: Child, said: Said) -> None:
        match said.word:
            case "failed":
                status, _, text = said.data.decode(errors="replace").partition(" ")
                child.failure = int(status), text
            case "prepared" | "updated" | "serving":
                child.said = said.word
                self._go_on(child)
            case "notify":
                self._outside.manager.forward(said.data)
            case "admin":
                self._stock.keep_admin(said)
            case "sockets":
                self._take_sockets(said)
            case "unwanted":
                self._stock.drop_fresh()
            case "upgrade":
                self._passing_on.begin(said.loaded(), can_be=self._phase == "serving")
            case "last":
                self._passing_on.go(said.loaded())
            case "abort":
                self._passing_on.break_off(said.data.decode())
            case "config":
                self._take_config(said)
            case "known":
                self._known = said.loaded()
            case "replace":
                self._replace(self._children[int(said.data)])
            case _:
                close_all(said.fds)

    # --- to serve ---------------------------------------------------------------------------------------------------

    def _waits(self, child: Child) -> bool:
        """Does it prepare all, and wait to be told to serve?"""
        is_late = child.number > self._stock.doors.n_seated
        return self._before is not None and (self._phase in ("starting", "ready", "going") or is_late)

    def _go_on(self, child: Child) -> None:
        """A process has come further: what is next?"""
        controller, workers = self._children[CONTROLLER], self._children[1:]
        seated = workers[: self._stock.doors.n_seated]
        match self._phase:
            case "starting" if self._before is None and all(item.serves for item in self._children):
                self._serve()
                self._tell_controller("running")
            case "starting" if self._before is not None and all(item.said for item in self._children):
                self._phase = "ready"
                self._before.ready()
            case "ready" if controller.said == "updated":
                self._phase = "going"
                for worker in seated:
                    self._let_serve(worker)
            case "going":
                if child in seated:
                    self._let_serve(child)
                if all(item.serves for item in seated):
                    self._let_serve(controller)
                if all(item.serves for item in (*seated, controller)):
                    self._serve()
            case "serving" | "leaving":
                if not child.serves:
                    self._let_serve(child)
                    return
                log.info("the %s (%d) serves", child.name, child.pid)
                if child is controller:
                    self._tell_controller("running")
                    if self._owes_reload:
                        self._owes_reload = False
                        self._tell_controller("reload")

    def _let_serve(self, child: Child) -> None:
        """Tell one that waits for it."""
        if child.line is None or child.said not in ("prepared", "updated"):
            return
        if child.number != CONTROLLER:  # it may have begun before there were sockets for it
            for name, door in self._stock.doors.open.items():
                self._give(child, name, door)
        child.line.say("serve")
        child.said = "told"

    def _serve(self) -> None:
        """All processes do."""
        self._phase = "serving"
        self._stock.owns_files = True
        for door in self._stock.doors.open.values():
            for address in door.addresses:
                log.info("listening name=%s address=%s", door.listener, address)
        self._outside.tell_serving()
        self._feed_at = time.monotonic()
        if self._before is not None:
            self._before.serving()
            self._stock.doors.widen()
            for worker in self._children[1:]:
                self._let_serve(worker)

    def _hear_before(self) -> None:
        """Of the lbproxy whose work this one takes over. Raises StartError."""
        if self._before is None or self._phase == "starting":
            return
        try:
            answer = self._before.hear()
        except NotWanted as not_wanted:
            raise StartError(str(not_wanted)) from None
        if answer is not None:
            (states,) = answer
            self._known = self._known if states is None else states
            controller = self._children[CONTROLLER]
            if controller.line is not None:
                controller.line.say_all("update", states)

    # --- another lbproxy takes over ---------------------------------------------------------------------------------

    def _hand_over(self, heir: Heir) -> None:
        """It serves: what is in flight here is finished, and nobody is forked any more."""
        now = time.monotonic()
        if self._phase == "stopping":
            heir.stop()
            self._outside.handed_over(heir.pid)
            return
        self._phase = "leaving"
        self._kill_at = now + self._config.shutdown.after_upgrade + OVERTIME_S
        self._outside.handed_over(heir.pid)
        self._stock.hand_over(heir.taken)
        for child in self._children:
            child.due_at = None
            if child.line is not None:
                child.line.say_all("leave", (heir.pid, heir.version, heir.taken))

    def _heir_stops(self, heir: Heir) -> None:
        if self._phase == "leaving":
            log.info("the process %d stops, and so does this one", heir.pid)
            self._finish()

    # --- another config ---------------------------------------------------------------------------------------------

    def _take_sockets(self, said: Said) -> None:
        """Of a config that is not in force yet: each worker gets its own."""
        doors = self._stock.take(said)
        for child in self._children[1:]:
            for name, door in doors.items():
                self._give(child, name, door)

    def _give(self, child: Child, name: str, door: Door) -> None:
        own = door.slots[child.number - 1]
        if child.line is not None:
            told = {name: (len(own), door.is_ours)}
            child.line.say("sockets", json.dumps(told).encode(), [sock.fileno() for sock in own])

    def _drop_sockets(self) -> None:
        """The controller died before it had their config in force: nobody may find their addresses taken, or wait
        there."""
        names = self._stock.drop_fresh(keeps_files=False)
        for child in self._children[1:] if names else ():
            if child.line is not None:
                child.line.say("unwanted", json.dumps(names).encode())

    def _take_config(self, said: Said) -> None:
        self._generation, self._config, gone = said.loaded()
        self._stock.adopt(self._config, gone)
        self._tell_controller("adopted")
        operator_log.change(self._config.log.level, self._config.log.format)

    def _replace(self, child: Child) -> None:
        if child.pid:
            os.kill(child.pid, signal.SIGKILL)

    # --- signals ----------------------------------------------------------------------------------------------------

    def _signalled(self, number: signal.Signals) -> None:
        is_passed_on = self._outside.pass_on(number)
        match number:
            case signal.SIGTERM | signal.SIGINT:
                self._stop(number)
            case _ if is_passed_on:
                return
            case signal.SIGHUP:
                self._owes_reload = self._children[CONTROLLER].line is None
                self._tell_controller("reload")
            case signal.SIGUSR1:
                self._tell_all("reopen")
                log.info("SIGUSR1: log files are opened again")
            case signal.SIGUSR2:
                self._upgrade_signal()

    def _upgrade_signal(self) -> None:
        if self._phase in ("starting", "ready") or self._children[CONTROLLER].line is None:
            log.warning("SIGUSR2: lbproxy, or its controller, is still starting; send it again")
        else:
            self._tell_controller("upgrade")

    def _stop(self, number: signal.Signals) -> None:
        if self._phase in ("starting", "ready") and self._before is not None:
            raise StartError("it was told to stop before it served")
        if self._phase == "stopping":
            log.warning("%s again: stopping at once", number.name)
            self._kill_at = time.monotonic() + OVERTIME_S
            self._tell_all("now")
            return
        log.info("%s: stopping; in-flight requests have %gs", number.name, self._config.shutdown.grace)
        self._outside.manager.stopping()
        self._finish()

    def _finish(self) -> None:
        """What is in flight has the grace from now on."""
        self._phase = "stopping"
        self._told_at = time.monotonic()
        self._kill_at = self._told_at + self._config.shutdown.grace + OVERTIME_S
        self._passing_on.stop(self._config.shutdown.grace)
        if self._before is not None:
            self._before.stop()
        for child in self._children:
            child.due_at = None
        self._has_to_tell = True
        self._tell_to_stop()

    def _tell_to_stop(self) -> None:
        """As soon as nobody else has the sockets: who came to those of a process that ends would be lost with it."""
        if self._has_to_tell and not self._passing_on.is_ending:
            self._has_to_tell = False
            self._stock.close()
            self._tell_all("stop", b"%.3f" % (time.monotonic() - self._told_at))

    def _tell_all(self, word: str, data: bytes = b"") -> None:
        for child in self._children:
            if child.line is not None:
                child.line.say(word, data)

    def _tell_controller(self, word: str) -> None:
        line = self._children[CONTROLLER].line
        if line is not None:
            line.say(word)

    def _say_to_controller(self, word: str, data: object) -> None:
        line = self._children[CONTROLLER].line
        if line is not None:
            line.say_all(word, data)

    def _feed(self, now: float) -> None:
        is_alone = self._before is None or not self._before.is_there or self._phase == "stopping"
        if self._phase in ("leaving", "stopping") and is_alone and not any(child.pid for child in self._children[1:]):
            self._tell_controller("now")
        if self._feed_at is not None and now >= self._feed_at:
            pause_s = self._outside.manager.feed()
            self._feed_at = None if pause_s is None else now + pause_s
