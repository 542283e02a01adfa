"""A new process for an upgrade: how it is started, and what is said of one that did not take over."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lbproxy.process.upgrade import arriving

END_S: Final = 5.0
"""For a process that is not wanted, until it is killed; for one that has closed its end, until its end is known."""
HURRIED_END_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Patience:
    """With a new process that is not wanted any more, in seconds. word_s: for its word that it serves, if it was told
    to, since it may do so already. end_s: for its end, until it is killed."""

    word_s: float = END_S
    end_s: float = END_S

    @classmethod
    def of_a_stop(cls, grace: float) -> Patience:
        """Where this process was told to stop: what is in flight has `grace` seconds from then on, these included."""
        return cls(min(END_S, grace / 2), min(HURRIED_END_S, grace / 4))


class Failed(Exception):
    """The new process can't take over. problems: why, one sentence each."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("; ".join(problems))


def start(
    command: Callable[[], Sequence[str]],
    environ: Mapping[str, str],
    fd: int,
    pass_fds: Sequence[int] = (),
    *,
    own_group: bool = False,
) -> subprocess.Popen[bytes]:
    """Start lbproxy again; it takes a few milliseconds. fd: the new process's end of the conversation. own_group: it
    gets a process group of its own. Raises Failed."""
    words: Sequence[str] = ()
    try:
        words = list(command())
        return subprocess.Popen(
            words,
            env={**environ, arriving.FD: str(fd)},
            pass_fds=(fd, *pass_fds),
            process_group=0 if own_group else None,
        )
    except ValueError as error:
        raise Failed(str(error)) from None
    except OSError as error:
        raise Failed(f"cannot start {error.filename or words[0]}: {error.strerror or error}") from None


def how_it_ended(status: int | None) -> str:
    """Of a process that has closed its end before it served. status: as subprocess has it; None: it goes on."""
    if status is None:
        return "the new process broke off, and goes on without a word"
    how = f"was killed by {_signal_name(-status)}" if status < 0 else f"ended with status {status}"
    return f"the new process {how} before it was ready; the log has its own words"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def problems_of(told: Mapping[str, object]) -> Failed:
    """From what a new process says that can't serve."""
    problems = told.get("problems")
    return Failed(*(map(str, problems) if isinstance(problems, list) else ("it did not say why",)))
