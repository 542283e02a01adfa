"""A forked process ends with a status, whatever happens. That one which can't start says why: test_supervisor.py."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, cast

from lbproxy.process.workers.child import Child
from lbproxy.process.workers.forking import become

NOTHING = cast(Any, None)


def status_of_fork(supervisor: int, leave_to_parent: Callable[[], None]) -> int:
    """The exit status of a process that becomes a worker, if it ever comes to that."""
    pid = os.fork()
    if not pid:
        become(Child(1), NOTHING, NOTHING, supervisor=supervisor, others=(), leave_to_parent=leave_to_parent)
        os._exit(99)  # it came back
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_whose_supervisor_is_dead_already_ends_at_once() -> None:
    assert status_of_fork(1, lambda: None) == 1


def test_what_goes_wrong_before_it_is_anything_ends_it() -> None:
    def fail() -> None:
        raise OSError("no more descriptors")

    assert status_of_fork(os.getpid(), fail) == 1
