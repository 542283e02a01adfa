"""`state_file`: what control/kept_state.py knows, on disk, so that a restart begins with it.

A file is replaced as a whole: written beside the old one under another name, synced, renamed, the folder synced. Who
is killed in between leaves the old file, or the new one. Writing blocks, so it is done in a thread, one at a time
(process/threads.py), QUIET_S after a change and GAP_S after the last write at the soonest. What could not be written is
tried again, later each time; nothing else waits for it.

While somebody is down or ejected the file is written once in REFRESH_S, changed or not: verdicts are believed for as
long as they are fresh, and nobody else could say when a process was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import stat
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from lbproxy.control.kept_state import Json
from lbproxy.tasks import Tasks

log = logging.getLogger("lbproxy")

QUIET_S: Final = 0.2
GAP_S: Final = 1.0
REFRESH_S: Final = 60.0
AGAIN_S: Final = (1.0, 5.0, 15.0, 60.0)  # after so many failures on end
STOP_S: Final = 2.0  # that the end of the process waits for the last write
WRITE_S: Final = 10.0  # then the disk hangs
READ_S: Final = 5.0  # that a start waits for the file
MAX_BYTES: Final = 8 << 20  # 20,000 servers of whom there is something to say
MODE: Final = 0o600


class Ignored(Exception):
    """There is a file, but it says nothing that can be used. The text says why."""


class Disk:
    """The system calls of a write, in order. Each raises OSError."""

    def create(self, path: str) -> int:
        """A new file, which nobody else may read. What has that name is removed."""
        self.remove(path)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)

    def write(self, descriptor: int, data: bytes) -> int:
        return os.write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def rename(self, path: str, to: str) -> None:
        Path(path).rename(to)

    def remove(self, path: str) -> None:
        Path(path).unlink(missing_ok=True)

    def sync_folder(self, path: str) -> None:
        """So that the rename outlives a power cut. Some file systems can't, and need not."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EBADF):
                raise
        finally:
            os.close(descriptor)


def replace_file(path: str, data: bytes, disk: Disk) -> None:
    """Put `data` in place of the file. Where a link leads to it the file behind is meant. Raises OSError."""
    target = os.path.realpath(path)
    fresh = f"{target}.new"
    descriptor = disk.create(fresh)
    try:
        try:
            left = data
            while left:
                left = left[disk.write(descriptor, left) :]
            disk.sync(descriptor)
        finally:
            disk.close(descriptor)
        disk.rename(fresh, target)
    except OSError:
        with contextlib.suppress(OSError):  # where the disk is full its part must not stay
            disk.remove(fresh)
        raise
    disk.sync_folder(str(Path(target).parent))


def read_file(path: str, config_path: str) -> object:
    """What was kept, None if there is no file. Raises Ignored.

    config_path: of the config that is to run; what was kept of another one is not for it.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Ignored("it is no file")
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Ignored(_told(error)) from None
    if len(content) > MAX_BYTES:
        raise Ignored(f"it is larger than {MAX_BYTES >> 20} MiB")
    if not content:
        raise Ignored("it is empty")
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        raise Ignored("it is damaged: no JSON") from None
    if not isinstance(told, dict) or not isinstance(told.get("config"), str) or "state" not in told:
        raise Ignored("it is no state of lbproxy")
    if told["config"] != identity(config_path):
        raise Ignored(f"it belongs to the config {told['config']:.200}")
    return told["state"]


def _open_at_once(path: str, flags: int) -> int:
    """A pipe would wait for its other end."""
    return os.open(path, flags | os.O_NONBLOCK)


def identity(config_path: str) -> str:
    """What tells the configs of one machine apart."""
    return config_path if config_path in ("", "-") else str(Path(config_path).absolute())


def why_not_kept(path: str) -> str:
    """Why a state file with this path could not be written, "" if it could, as far as that shows without writing."""
    try:
        target = Path(os.path.realpath(path))
    except ValueError as bad_name:
        return str(bad_name)
    if target.is_dir():
        return "it is a directory"
    if not target.parent.is_dir():
        return f"there is no directory {target.parent}"
    return "" if os.access(target.parent, os.W_OK | os.X_OK) else f"no file can be made in {target.parent}"


def _told(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error)


class StateFile:
    """Keeps a file in step with `snapshot`. path: as the config has it, below base_dir. clock: monotonic seconds.

    count_error: called for each write that failed. is_ours: may this process write it? Else not before `begin`.
    """

    def __init__(
        self,
        path: str,
        config_path: str,
        snapshot: Callable[[], Json],
        tasks: Tasks,
        clock: Callable[[], float],
        count_error: Callable[[], None],
        *,
        is_ours: bool = True,
        disk: Disk | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.path = path
        self.error = ""
        self.written_at: float | None = None
        self._config_path = config_path
        self._snapshot = snapshot
        self._tasks = tasks
        self._clock = clock
        self._count_error = count_error
        self._disk = disk or Disk()
        self._sleep = sleep
        self._task: asyncio.Task[None] | None = None
        self._is_stale = False
        self._is_ours = is_ours
        self._n_failures = 0
        self._in_file: object = None  # pools of the last snapshot that was written
        self._has_verdicts = False
        self._gate = threading.Lock()  # of the thread that writes

    async def read(self) -> object:
        """What the file says, None if nothing that can be used; a warning then says why."""
        try:
            async with asyncio.timeout(READ_S):
                return await asyncio.to_thread(read_file, self.path, self._config_path)
        except TimeoutError:
            self.ignore(f"reading it takes longer than {READ_S:g} s")
        except Ignored as error:
            self.ignore(str(error))
        return None

    def told(self) -> Json:
        """For the status: seconds since it was written (null: not yet), and what was wrong the last time."""
        age_s = None if self.written_at is None else round(self._clock() - self.written_at, 3)
        return {"path": self.path, "age": age_s, "error": self.error or None}

    def ignore(self, why: str) -> None:
        """Tell that the file is of no use."""
        log.warning("state_file %s is ignored: %s; it is replaced with the next change", self.path, why)

    # --- writing ----------------------------------------------------------------------------------------------------

    def changed(self) -> None:
        """Something that is kept may be another than before: write it soon."""
        self._is_stale = True
        if self._is_ours and (self._task is None or self._task.done()):
            self._task = self._tasks.spawn(self._follow(), "state file")

    def tick(self, now: float) -> None:
        """To be called now and then."""
        if self._has_verdicts and self.written_at is not None and now - self.written_at >= REFRESH_S:
            self._in_file = None
            self.changed()

    def begin(self) -> None:
        """From now on it is this process's to write."""
        self._is_ours = True
        if self._is_stale:
            self.changed()

    def let_go(self) -> None:
        """Write no more: it is somebody else's."""
        self._is_ours = False
        if self._task is not None and not self._task.done():
            self._task.cancel()
            self._is_stale = True  # what it was about to write, should this be taken back

    async def pause(self) -> None:
        """Let go, and wait STOP_S for a write that is under way, so that it does not replace somebody else's."""
        self.let_go()
        if await asyncio.to_thread(self._gate.acquire, timeout=STOP_S):
            self._gate.release()
        else:
            log.warning("state_file %s: a write takes longer than %g s and may come too late", self.path, STOP_S)

    async def stop(self) -> None:
        """The last write, for which the end waits STOP_S. Nothing else may be at work any more."""
        if not self._is_ours:
            return
        self._in_file = None  # what is fresh now is believed at the next start
        try:
            async with asyncio.timeout(STOP_S):
                await self._write(STOP_S)
        except TimeoutError:
            log.warning("state_file %s: the last write takes longer than %g s and is left", self.path, STOP_S)
        self._is_ours = False

    async def _follow(self) -> None:
        while self._is_stale:
            gap_s = 0.0 if self.written_at is None else self.written_at + GAP_S - self._clock()
            await self._sleep(max(QUIET_S, gap_s))
            await self._write()
            if self.error:
                await self._sleep(AGAIN_S[min(self._n_failures, len(AGAIN_S)) - 1])

    async def _write(self, wait_s: float = 0.0) -> None:
        """wait_s: for a write that is under way."""
        self._is_stale = False
        state = self._snapshot()
        if state["pools"] == self._in_file:
            return
        try:
            async with asyncio.timeout(WRITE_S):
                await asyncio.to_thread(self._replace, state, wait_s)
        except TimeoutError:
            self._failed(f"it takes longer than {WRITE_S:g} s")
            return
        except (OSError, ValueError, RuntimeError) as error:  # no such name; the system has no thread left
            self._failed(_told(error))
            return
        if self.error:
            log.info("state_file %s is written again", self.path)
        self.error, self._n_failures, self.written_at = "", 0, self._clock()
        self._in_file = state["pools"]
        self._has_verdicts = has_verdicts(state)

    def _failed(self, why: str) -> None:
        self._n_failures += 1
        self._is_stale = True
        self._count_error()
        if why != self.error or self._n_failures > len(AGAIN_S):  # then it comes once a minute
            log.warning(
                "state_file %s cannot be written: %s; a restart would not know what was changed since", self.path, why
            )
        self.error = why

    def _replace(self, state: Json, wait_s: float) -> None:
        """In a thread. Of a disk that hangs only one hangs."""
        content = json.dumps({"config": identity(self._config_path), "state": state}, indent=1).encode() + b"\n"
        if len(content) > MAX_BYTES:
            raise OSError(errno.EFBIG, f"it would be larger than {MAX_BYTES >> 20} MiB")
        if not self._gate.acquire(timeout=wait_s):
            raise OSError(errno.EBUSY, "a write before this one has not ended yet")
        try:
            replace_file(self.path, content, self._disk)
        finally:
            self._gate.release()


def has_verdicts(state: Json) -> bool:
    """Does it say that somebody is down or ejected?"""
    pools = state["pools"]
    assert isinstance(pools, dict)
    servers = [server for pool in pools.values() for server in pool.get("servers", ())]
    return any("health" in server or "ejected" in server for server in servers)
