"""The running process of an upgrade: it starts another one, hands its sockets over, and leaves when that one serves.

Until the new process has said that it accepts, nothing of the old one has changed: both have the same listening
sockets, so whatever becomes of the new one, no connection is refused and none is lost.

From `go` on it may serve at any moment. Whoever gives it up after that hears first whether it does: then it has taken
over, and what it has in its hands is not lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from lbproxy import __version__
from lbproxy.control.status import Json
from lbproxy.process.upgrade import channel
from lbproxy.process.upgrade.channel import Broken, Gone, Line
from lbproxy.process.upgrade.sockets import Given, describe
from lbproxy.process.upgrade.starting import END_S, Failed, Patience, how_it_ended, problems_of, start
from lbproxy.tasks import Tasks
from lbproxy.telemetry.slots import PROCESS, UPGRADE_RESULTS, Row

log = logging.getLogger("lbproxy")

READY_S: Final = 60.0
SHOWN: Final = 8  # problems that the log names
_COUNTS: Final = {word: PROCESS.column("upgrades_total", word) for word in UPGRADE_RESULTS}

Offered = Mapping[str, Given]


@dataclass(frozen=True, slots=True)
class Offer:
    """What this process has to give. sockets: see `describe`. states, last_states: what it knows of servers
    (control/kept_state.py); the last is told when it is to leave. is_ready: does it serve?"""

    sockets: Offered
    states: Callable[[], Json]
    last_states: Callable[[], Awaitable[Json]]
    is_ready: bool


@dataclass(slots=True)
class Heir:
    """Who has taken over. taken: the names of the sockets that it uses."""

    pid: int
    version: str
    taken: frozenset[str]


@dataclass(slots=True)
class Successor(Heir):
    """The same, started by this process."""

    line: Line
    process: subprocess.Popen[bytes]


AnyHeir = TypeVar("AnyHeir", bound=Heir)
HandOver = Callable[[Sequence[int]], Awaitable[AnyHeir]]
"""Starts a process and waits until it serves, or raises Failed; there is no new process then, also if it is cancelled,
with the reason as its message. It is told the counts of upgrades so far."""


class Upgrading(Generic[AnyHeir]):
    """Makes upgrades, one at a time.

    refusal: why there can't be an upgrade now, None if there can. lock: held meanwhile, so that no config comes in
    force. row: the PROCESS counters; counts: of upgrades so far, if others than this row have some. tell(text, by): an
    event. handed_over: called once, in the turn of the loop in which the new process has said that it serves. pid: by
    which this lbproxy is known, None: that of this process.
    """

    def __init__(
        self,
        *,
        hand_over: HandOver[AnyHeir],
        refusal: Callable[[], str | None],
        lock: asyncio.Lock,
        tasks: Tasks,
        row: Row,
        tell: Callable[[str, str], None],
        handed_over: Callable[[AnyHeir], None],
        counts: Callable[[], Row] | None = None,
        pid: int | None = None,
    ) -> None:
        self._hand_over = hand_over
        self._refusal = refusal
        self._lock = lock
        self._tasks = tasks
        self._row = row
        self._tell = tell
        self._handed_over = handed_over
        self._counts = counts or (lambda: row)
        self._pid = pid or os.getpid()
        self._task: asyncio.Task[tuple[int, Json]] | None = None
        self._by = ""
        self.successor: AnyHeir | None = None

    async def upgrade(self, by: str) -> tuple[int, Json]:
        """200 and who has taken over; 409 and why there can't be an upgrade now; 422 and why there was none: then this
        process goes on as before. by: who asked."""
        why = self._refusal()
        if self.successor is not None:
            why = f"the process {self.successor.pid} has taken over already; ask that one"
        elif self._task is not None:
            why = f"an upgrade is under way, by {self._by}; wait for its end"
        if why is not None:
            self._row[_COUNTS["refused"]] += 1
            log.warning("upgrade by %s is refused: %s", by, why)
            return 409, {"problems": [why]}
        self._by = by
        self._task = self._tasks.spawn(self._run(by), "upgrade")
        return await asyncio.shield(self._task)

    async def abort(self, why: str) -> None:
        """End the upgrade that is under way, if there is one."""
        if self._task is not None and self.successor is None:
            self._task.cancel(why)
            await asyncio.wait((self._task,))

    async def _run(self, by: str) -> tuple[int, Json]:
        begun = asyncio.get_running_loop().time()
        log.info("upgrade by %s: another process is started", by)
        try:
            async with asyncio.timeout(READY_S), self._lock:
                counts = self._counts()
                successor = await self._hand_over([counts[column] for column in _COUNTS.values()])
        except Failed as error:
            return self._failed(error.problems, by)
        except TimeoutError:
            return self._failed((f"the new process was not ready within {READY_S:g} s",), by)
        except asyncio.CancelledError as why:
            return self._failed((str(why) or "lbproxy is stopping",), by)
        finally:
            self._task = None
        took_s = asyncio.get_running_loop().time() - begun
        self._row[_COUNTS["success"]] += 1
        told = f"upgrade: process {successor.pid} ({successor.version}) has taken over from {self._pid}"
        log.info("%s (%s), after %.1f s, by %s", told, __version__, took_s, by)
        self._tell(told, by)
        self.successor = successor
        self._handed_over(successor)
        return 200, {
            "old": {"pid": self._pid, "version": __version__},
            "new": {"pid": successor.pid, "version": successor.version},
            "seconds": round(took_s, 3),
        }

    def _failed(self, problems: Sequence[str], by: str) -> tuple[int, Json]:
        self._row[_COUNTS["failure"]] += 1
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        told = f"no upgrade, this process goes on: {'; '.join(problems[:SHOWN])}{more}"
        log.warning("upgrade by %s: %s", by, told)  # not an error of lbproxy's own
        self._tell(f"upgrade: {told}", by)
        return 422, {"problems": list(problems)}


class HandingOver:
    """Hands the work of this process over to one that it starts: a `HandOver`.

    command: the words that start lbproxy; raises ValueError. environ, pass_fds: for the new process. own_group: it gets
    a process group of its own. offer: what it gets. failed: called when it will not serve, and so this process goes on.
    """

    def __init__(
        self,
        *,
        command: Callable[[], Sequence[str]],
        environ: Callable[[], dict[str, str]],
        pass_fds: Callable[[], Sequence[int]] = tuple,
        own_group: bool = False,
        offer: Callable[[], Offer],
        tasks: Tasks,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._command = command
        self._environ = environ
        self._pass_fds = pass_fds
        self._own_group = own_group
        self._offer = offer
        self._tasks = tasks
        self._failed = failed
        self._patience = Patience()
        self._unwanted: subprocess.Popen[bytes] | None = None
        self._dying: asyncio.Task[None] | None = None

    def hurry(self, patience: Patience) -> None:
        """This process is about to end, and waits no longer than that for another one."""
        self._patience = patience

    async def gone(self) -> None:
        """Wait for the end of a process that was not wanted: it has our sockets, too, and accepts nobody."""
        if self._dying is not None and self._unwanted is not None:
            await asyncio.wait((self._dying,), timeout=self._patience.end_s)
            self._unwanted.kill()
            await asyncio.wait((self._dying,))

    async def __call__(self, counts: Sequence[int]) -> Successor:
        process: subprocess.Popen[bytes] | None = None
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            with contextlib.ExitStack() as unless_made:
                unless_made.enter_context(ours)
                unless_made.enter_context(theirs)
                conversation = _Conversation(ours, lambda: self._patience.word_s)
                unless_made.pop_all()
        except OSError as error:
            raise Failed(f"there is no way to speak with another process: {error.strerror}") from None
        try:
            with theirs:  # here on the loop, where no cancellation can lose the process
                process = start(
                    self._command, self._environ(), theirs.fileno(), self._pass_fds(), own_group=self._own_group
                )
            try:
                return await conversation.lead(self._offer(), counts, process)
            except Gone:
                raise Failed(how_it_ended(await _wait(process, END_S))) from None
            except (Broken, ValueError) as error:
                raise Failed(f"the new process said what can't be understood: {error}") from None
        except BaseException as error:
            conversation.break_off(str(error) or f"not ready within {READY_S:g} s")
            if process is not None:
                self._unwanted = process
                self._dying = self._tasks.spawn(ended(process), "upgrade: the end of the new process")
            self._failed()
            raise


class _Conversation:
    """With a new process, on one socket: blocking, in threads, as long as descriptors are sent; then on the loop.
    patience_s: see `_last_heard`."""

    def __init__(self, sock: socket.socket, patience_s: Callable[[], float]) -> None:
        self._sock = sock
        self._patience_s = patience_s
        self._spare = sock.dup()  # for the last word: whoever is cancelled while the loop takes the socket closes it
        sock.settimeout(READY_S)
        self._line: Line | None = None

    async def lead(self, offer: Offer, counts: Sequence[int], process: subprocess.Popen[bytes]) -> Successor:
        """Raises Gone, Broken, Failed."""
        hello = await asyncio.to_thread(channel.receive, self._sock)
        version = hello.get("version")
        if hello["say"] != "hello" or hello.get("protocol") != channel.PROTOCOL:
            raise Failed(f"lbproxy {version} can't take over from {__version__}: restart instead")
        pid = hello.get("pid")
        fds, told = describe(offer.sockets)
        description = {
            "sockets": told,
            "states": offer.states(),
            "ready": offer.is_ready,
            "counts": list(counts),
            "pid": os.getpid(),
        }
        await asyncio.to_thread(channel.send_sockets, self._sock, fds, description)
        line = self._line = await Line.on(self._sock)
        self._spare.close()
        ready = await line.hear()
        if ready["say"] == "failed":
            raise problems_of(ready)
        if ready["say"] != "ready":
            raise Broken(f"{ready['say']} in place of ready")
        taken = ready.get("taken")
        await line.say("go", states=await offer.last_states())
        serving = await _last_heard(line, self._patience_s)
        if serving["say"] != "serving":
            raise Broken(f"{serving['say']} in place of serving")
        return Successor(
            pid if isinstance(pid, int) else process.pid,
            str(version),
            frozenset(map(str, taken)) if isinstance(taken, list) else frozenset(),
            line,
            process,
        )

    def break_off(self, why: str) -> None:
        """It is not wanted any more. Whoever hears only the end takes over, so this says it before."""
        if self._line is not None:
            self._line.last_word("abort", why=why)
            return
        with self._spare as spare:
            spare.setblocking(False)
            with contextlib.suppress(Gone, Broken, OSError):  # it is gone, or takes nothing: it is killed soon
                channel.send(spare, "abort", why=why)
            with contextlib.suppress(OSError):
                spare.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for it
        self._sock.close()


async def _last_heard(line: Line, patience_s: Callable[[], float]) -> Json:
    """What a process says that was told to serve. Who is cancelled meanwhile waits so long for it, and goes on if it
    comes: the process serves. Raises Gone, Broken."""
    try:
        return await line.hear()
    except asyncio.CancelledError:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s()):
                return await line.hear()
        raise


async def ended(process: subprocess.Popen[bytes]) -> None:
    """Have a process end, and wait for that."""
    try:
        process.terminate()
        await _wait(process, END_S)
    finally:  # also when this process ends before that
        process.kill()
    await _wait(process, END_S)


async def _wait(process: subprocess.Popen[bytes], patience_s: float) -> int | None:
    """Its status; None if it goes on."""
    try:
        return await asyncio.to_thread(process.wait, patience_s)
    except subprocess.TimeoutExpired:
        return None
