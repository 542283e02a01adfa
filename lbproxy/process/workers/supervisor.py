"""The process that the user sees where there are several: it forks a controller and workers, and sees to them.

It has no event loop and no threads, so it can fork at any time, and reads nothing from the network. It keeps the
listening sockets, so that clients in the kernel's queues wait for the successor of a worker that died. What every
process shares it makes before the first fork.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import pickle
import random
import select
import signal
import socket
import time
from asyncio import Runner
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final, Literal

from lbproxy import __version__
from lbproxy.config.loader import Kept
from lbproxy.config.model import Config
from lbproxy.config.problems import Unusable
from lbproxy.control.metrics import Registry
from lbproxy.dataplane.listener import BindError
from lbproxy.dataplane.net.unix_socket import SocketFile
from lbproxy.process.building import Builder, Rows, TlsParts
from lbproxy.process.first_words import first_lines
from lbproxy.process.listeners import binds_of
from lbproxy.process.outside import Outside
from lbproxy.process.threads import new_loop
from lbproxy.process.upgrade.sockets import Inherited, Passed, admin_name
from lbproxy.process.worker import StartError, not_started
from lbproxy.process.workers.board import CONTROLLER, STARTING, Board
from lbproxy.process.workers.child import Child
from lbproxy.process.workers.control_process import NO_UPGRADE, ControlProcess
from lbproxy.process.workers.data_process import DataProcess
from lbproxy.process.workers.lines import Gone, Line, Said, from_memory
from lbproxy.process.workers.share import Share, ShareError
from lbproxy.process.workers.sockets import Door, Doors, unflat
from lbproxy.process.workers.station import Setup, close_all
from lbproxy.process.workers.stuck import SILENT_S, START_S, look
from lbproxy.telemetry import log as operator_log
from lbproxy.telemetry.slots import Slots

log = logging.getLogger("lbproxy")

LOOK_S: Final = 0.5
RETRY_S: Final = 1.0  # when there was no memory or no descriptor for a process
OVERTIME_S: Final = 10.0  # after the grace, for what a worker still has to write
HEARD: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCHLD,
)
_SET_DEATH_SIGNAL: Final = 1  # prctl(2)
_SET_NAME: Final = 15

Phase = Literal["starting", "serving", "stopping"]


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
        self._noted: list[signal.Signals] = []
        self._doors = Doors(n_workers)
        self._fresh: dict[str, Door] = {}  # of a config that is not in force yet
        self._admin: tuple[str, Passed] | None = None
        self._known: object = None
        self._tls: TlsParts | None = None
        self._children = [Child(number) for number in range(n_workers + 1)]
        self._looked_at = 0.0
        self._trusted_at = 0.0
        self._feed_at: float | None = None
        self._kill_at: float | None = None
        self._wake, self._woken = socket.socketpair()
        self._board: Board
        self._share: Share

    # --- life -------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Until everything has ended. Raises StartError."""
        for line in first_lines(self._config, self._config_path, __version__, os.getpid()):
            log.info("%s", line)
        if self._outside.arrival is not None:
            raise StartError(NO_UPGRADE)
        self._listen_to_signals()
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
            self._doors.close(keeps_files=True)
            self._doors.remove_files()
            if self._admin is not None and self._admin[1].file is not None:
                self._admin[1].file.remove()
        log.log(
            logging.WARNING if self._status else logging.INFO,
            "stopped; %s",
            "some requests or connections were cut" if self._status else "nothing was cut",
        )
        return self._status

    def _make(self) -> None:
        """All that the processes have in common. Raises StartError."""
        config = self._config
        wanted = binds_of(config)
        binds = {name: item.address for name, item in wanted.items()}
        admin = config.admin.bind
        try:
            inherited = self._outside.inherit(binds if admin is None else {**binds, admin_name(admin): admin})
            passed = None if admin is None else inherited.take(admin_name(admin))
            self._admin = None if passed is None else (admin_name(admin), passed)
            self._doors.bind(wanted, inherited)
            inherited.close()
            self._board = Board(self._doors.n_workers)
            self._share = Share(config, self._doors.n_workers)
            self._tls = self._listener_tls()
        except Unusable as error:
            raise StartError(self._shown(error), 2) from None
        except (ValueError, ShareError) as cannot:
            raise StartError(str(cannot)) from None
        except BindError as bind_error:
            raise StartError(str(bind_error)) from None
        except OSError as no_memory:
            raise StartError(str(no_memory)) from None
        gc.collect()
        gc.freeze()  # what is there now is shared with all that are forked, as long as nobody writes to it

    def _listener_tls(self) -> TlsParts:
        """Made here, so that all workers have the same keys of session tickets: Python's ssl can't be given any. Raises
        Unusable."""
        base_dir = str(Path(self._config_path).parent) if self._config_path else "."
        builder = Builder(
            self._config,
            Rows(Slots(), Registry(__version__)),
            rng=random.Random(),
            dial_failed=lambda pool, server, fault: None,
            strategy_failed=lambda pool, error: None,
            base_dir=base_dir,
        )
        for listener in self._config.listeners:
            builder.listener_tls(listener)
        return builder.tls

    def _is_over(self) -> bool:
        return self._phase == "stopping" and not any(child.pid for child in self._children)

    def _turn(self) -> None:
        """Wait for something to happen, and see to it."""
        now = time.monotonic()
        self._fork_due(now)
        self._wait(now)
        for number in self._take_signals():
            self._signalled(number)
        for child in self._children:
            self._hear(child)
        self._reap()
        self._look(time.monotonic())

    def _wait(self, now: float) -> None:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
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
        )
        supervisor = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if not pid:
            self._become(child, setup, ours, supervisor)
        theirs.close()
        child.started(pid, ours, now)
        self._board.started(child.number, pid, now)
        if child.number == CONTROLLER:
            for worker in self._children[1:]:
                self._introduce(worker)
        else:
            self._introduce(child)

    def _introduce(self, worker: Child) -> None:
        """Give a worker and the controller the ends of a channel."""
        controller = self._children[CONTROLLER]
        if worker.line is None or controller.line is None:
            return
        try:
            first, second = socket.socketpair()
        except OSError as error:
            log.error("the controller and the %s can't speak to each other: %s", worker.name, error.strerror)
            return
        controller.line.say("peer", b"%d" % worker.number, [first.fileno()])
        worker.line.say("peer", b"", [second.fileno()])
        first.close()
        second.close()

    def _become(self, child: Child, setup: Setup, ours: Line, supervisor: int) -> None:
        """In the new process: never returns."""
        status = 1
        try:
            libc = ctypes.CDLL(None)
            # Who was stopped goes on when the supervisor dies, and so hears of it.
            libc.prctl(_SET_DEATH_SIGNAL, signal.SIGCONT, 0, 0, 0)
            libc.prctl(_SET_NAME, f"lbproxy-{child.number or 'c'}".encode(), 0, 0, 0)
            signal.set_wakeup_fd(-1)
            for number in HEARD:  # the supervisor says what they mean; a terminal tells the whole group
                signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.SIG_IGN)
            for other in (self._wake, self._woken, ours, *(item.line for item in self._children)):
                if other is not None:
                    other.close()
            if os.getppid() != supervisor:
                return
            handler = operator_log.configure(self._config.log.level, self._config.log.format, process=child.name)
            try:
                status = self._run(setup)
            except StartError as error:
                setup.line.say("failed", f"{error.status} {error}".encode()[: 32 << 10])
                status = error.status
            except Exception:
                log.exception("%s ends", child.name)
            handler.close()
        finally:
            os._exit(status)

    def _run(self, setup: Setup) -> int:
        with Runner(loop_factory=new_loop) as runner:
            if setup.number == CONTROLLER:
                if self._admin is not None:
                    setup.sockets = Inherited(dict([self._admin]))
                for door in self._doors.open.values():
                    door.close(keeps_file=True)
                return runner.run(ControlProcess(setup, self._doors).run())
            setup.sockets = Doors(self._doors.n_workers, {**self._doors.open, **self._fresh}).leave_to(setup.number - 1)
            if self._admin is not None:
                self._admin[1].close()
            return runner.run(DataProcess(setup).run())

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

    def _ended(self, child: Child, status: int) -> None:
        now = time.monotonic()
        pid = child.pid
        child.ended()
        self._board.ended(child.number)
        if child.number == CONTROLLER:
            self._share.bury_controller()
        else:
            self._share.bury(child.number - 1, self._holds_up)
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        if self._phase == "starting":
            code, text = child.failure or (1, f"the {child.name} {how}")
            raise StartError(text, code)
        if self._phase == "stopping":
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

    def _holds_up(self, worker: int) -> None:
        """A worker was stopped while it had a lock, and the books of a dead one wait for that."""
        child = self._children[worker + 1]
        if child.pid:
            log.error("the %s (%d) does not let go of what others need: it is killed", child.name, child.pid)
            os.kill(child.pid, signal.SIGKILL)

    def _look(self, now: float) -> None:
        """Kill who is stuck, and whoever has had its time."""
        self._feed(now)
        if now - self._looked_at < LOOK_S:
            return
        if now - self._looked_at > LOOK_S + SILENT_S / 2:  # this one was stopped itself, and so were they, perhaps
            self._trusted_at = now + SILENT_S
        self._looked_at = now
        is_late = self._kill_at is not None and now >= self._kill_at
        for child in self._children:
            if not child.pid:
                continue
            silent_s = self._board.silent_s(child.number, now)
            seen = look(child.pid) if silent_s >= 1.0 else None
            patience_s = START_S if self._board.state(child.number) == STARTING else SILENT_S
            is_stuck = child.watch.is_stuck(silent_s, seen, patience_s) and now >= self._trusted_at
            if is_stuck and seen is not None:
                log.error(
                    "the %s (%d) has not answered for %.1f s (its state is %s): it is killed",
                    child.name,
                    child.pid,
                    silent_s,
                    seen.state,
                )
            elif is_late:
                log.error("the %s (%d) does not end: it is killed", child.name, child.pid)
            if is_stuck or is_late:
                os.kill(child.pid, signal.SIGKILL)

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
            case "serving":
                child.has_served = True
                self._now_serves(child)
            case "notify":
                self._outside.manager.forward(said.data)
            case "admin":
                self._keep_admin(said)
            case "sockets":
                self._take_sockets(said)
            case "unwanted":
                self._drop_fresh()
            case "config":
                self._take_config(said)
            case "known":
                self._known = pickle.loads(from_memory(said.fds[0]))
            case "replace":
                self._replace(self._children[int(said.data)])
            case _:
                close_all(said.fds)

    def _now_serves(self, child: Child) -> None:
        if self._phase == "serving":
            log.info("the %s (%d) serves", child.name, child.pid)
            if child.number == CONTROLLER:
                self._tell_controller("running")
        elif self._phase == "starting" and all(item.has_served for item in self._children):
            self._phase = "serving"
            for door in self._doors.open.values():
                for address in door.addresses:
                    log.info("listening name=%s address=%s", door.listener, address)
            self._outside.tell_serving()
            self._feed_at = time.monotonic()
            self._tell_controller("running")

    def _keep_admin(self, said: Said) -> None:
        told = json.loads(said.data)
        if self._admin is not None:
            self._admin[1].close()
        file = None if told["file"] is None else SocketFile(Path(told["file"][0]), told["file"][1], told["file"][2])
        self._admin = told["name"], Passed(tuple(socket.socket(fileno=fd) for fd in said.fds), file)

    def _take_sockets(self, said: Said) -> None:
        """Of a config that is not in force yet: each worker gets its own."""
        doors = unflat(json.loads(said.data), said.fds, self._doors.n_workers)
        self._fresh |= doors
        for child in self._children[1:]:
            for name, door in doors.items():
                own = door.slots[child.number - 1]
                if child.line is not None:
                    child.line.say("sockets", json.dumps({name: len(own)}).encode(), [sock.fileno() for sock in own])

    def _drop_fresh(self) -> None:
        for door in self._fresh.values():
            door.close(keeps_file=True)
        self._fresh.clear()

    def _take_config(self, said: Said) -> None:
        self._generation, self._config, gone = pickle.loads(from_memory(said.fds[0]))
        self._doors.open |= self._fresh
        self._fresh = {}
        for name in gone:
            if name in self._doors.open:
                self._doors.open.pop(name).close()
        operator_log.change(self._config.log.level, self._config.log.format)

    def _replace(self, child: Child) -> None:
        if child.pid:
            os.kill(child.pid, signal.SIGKILL)

    # --- signals ----------------------------------------------------------------------------------------------------

    def _listen_to_signals(self) -> None:
        for end in (self._wake, self._woken):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for number in HEARD:
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._noted.append(signal.Signals(number))

    def _take_signals(self) -> list[signal.Signals]:
        try:
            self._woken.recv(4096)
        except BlockingIOError:
            return []
        noted, self._noted = self._noted, []
        return noted

    def _signalled(self, number: signal.Signals) -> None:
        match number:
            case signal.SIGTERM | signal.SIGINT:
                self._stop(number)
            case signal.SIGHUP:
                self._tell_controller("reload")
            case signal.SIGUSR1:
                self._tell_all("reopen")
                log.info("SIGUSR1: log files are opened again")
            case signal.SIGUSR2:
                log.warning("SIGUSR2: %s", NO_UPGRADE)

    def _stop(self, number: signal.Signals) -> None:
        now = time.monotonic()
        if self._phase == "stopping":
            log.warning("%s again: stopping at once", number.name)
            self._kill_at = now + OVERTIME_S
            self._tell_all("now")
            return
        grace_s = self._config.shutdown.grace
        log.info("%s: stopping; in-flight requests have %gs", number.name, grace_s)
        self._outside.manager.stopping()
        self._phase = "stopping"
        self._kill_at = now + grace_s + OVERTIME_S
        for child in self._children:
            child.due_at = None
        self._doors.close(keeps_files=True)
        self._tell_all("stop")

    def _tell_all(self, word: str) -> None:
        for child in self._children:
            if child.line is not None:
                child.line.say(word)

    def _tell_controller(self, word: str) -> None:
        line = self._children[CONTROLLER].line
        if line is not None:
            line.say(word)

    def _feed(self, now: float) -> None:
        if self._phase == "stopping" and not any(child.pid for child in self._children[1:]):
            self._tell_controller("now")
        if self._feed_at is not None and now >= self._feed_at:
            pause_s = self._outside.manager.feed()
            self._feed_at = None if pause_s is None else now + pause_s


def run(
    config: Config,
    shown: Callable[[Unusable], str],
    *,
    config_path: str = "",
    kept: Kept | None = None,
    outside: Outside | None = None,
    n_workers: int,
) -> int:
    """Run lbproxy with several workers in the foreground; the exit status. The rest: see process/worker.py."""
    outside = outside or Outside()
    handler = operator_log.configure_direct(config.log.level, config.log.format, "supervisor")
    try:
        return Supervisor(config, shown, config_path, kept, outside, n_workers).run()
    except StartError as error:
        return not_started(error, outside)
    finally:
        outside.ended()
        handler.close()
