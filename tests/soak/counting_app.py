"""A WSGI application that writes down each request that it executes: one line with its id, before it answers.

Each worker process has a file of its own in the directory that `SOAK_EXECUTED` names, so nobody waits for anybody. A
framework would make each of the thousands of worker starts of a run some hundred times as expensive.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

EXECUTED = "SOAK_EXECUTED"

StartResponse = Callable[[str, list[tuple[str, str]]], object]

_files: dict[int, int] = {}


def app(environ: dict[str, object], start_response: StartResponse) -> Iterable[bytes]:
    """Execute POST /work/<id>; anything else is a health check."""
    path = str(environ["PATH_INFO"])
    if path.startswith("/work/"):
        os.write(_file(), path.removeprefix("/work/").encode() + b"\n")
    answer = path.encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]


def _file() -> int:
    """A descriptor to append to; a forked worker opens its own."""
    pid = os.getpid()
    if pid not in _files:
        path = Path(os.environ[EXECUTED]) / str(pid)
        _files[pid] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    return _files[pid]


def read_executed(directory: Path) -> Counter[str]:
    """How often each id was executed, over all workers that there were."""
    executed: Counter[str] = Counter()
    for path in directory.iterdir():
        executed.update(path.read_text().split())
    return executed
