"""Child processes that end with their parent's wish, whatever they do.

On Linux the kernel ends a child with its parent, so that none outlives one that got SIGKILL.

Each child leads its own process group, so that Ctrl-C at the terminal reaches the parent alone, which then stops the
children in order, and so that the processes which a child started can be ended when the child itself was killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence


class Child:
    """A running command: its name for messages, its pid, which is also its group's id."""

    __slots__ = ("_group_ended", "name", "process")

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.process = process
        self._group_ended = False

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def has_ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def how_it_ended(self) -> str:
        code = self.process.returncode
        if code is None:
            return "runs"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"

    def end_group(self) -> None:
        """SIGKILL for whatever is left of the group: the child itself, or workers that outlived it.

        Once only: a group that is empty gives its number back to the kernel.
        """
        if self._group_ended:
            return
        self._group_ended = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def __repr__(self) -> str:
        return f"<Child {self.name} {self.pid} {self.how_it_ended}>"


_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(number: signal.Signals, parent: int) -> None:
    """The kernel sends the caller this signal when its parent, `parent`, ends (prctl(2)). Only on Linux.

    What is executed later inherits it, what is forked does not.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # it ended before this was said
            os.kill(os.getpid(), number)


def start(
    name: str,
    command: Sequence[str],
    *,
    environ: Mapping[str, str] | None = None,
    fds: Sequence[int] = (),
    orphan_signal: signal.Signals = signal.SIGTERM,
) -> Child:
    """Start a command with the terminal's output and no input. Raises OSError.

    orphan_signal: what it gets when this process ends before it, on Linux. Call it from the main thread: the kernel
    looks at the thread that started the child.
    """
    parent = os.getpid()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        env=environ,
        pass_fds=fds,
        start_new_session=True,
        close_fds=True,
        preexec_fn=lambda: end_with_parent(orphan_signal, parent),
    )
    return Child(name, process)


def sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def stop(
    children: Sequence[Child],
    grace_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], bool] = sleep,
) -> None:
    """SIGTERM to all, wait at most `grace_s` seconds for all together, SIGKILL to what is left of their groups.

    `pause` waits some seconds and says whether the user has lost patience.
    """
    running = [child for child in children if not child.has_ended]
    for child in running:
        with contextlib.suppress(ProcessLookupError):
            child.process.send_signal(signal.SIGTERM)
    deadline = clock() + grace_s
    while clock() < deadline and not all(child.has_ended for child in running):
        if pause(0.02):
            break
    for child in children:
        child.end_group()
        child.process.wait()
