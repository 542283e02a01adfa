"""A daemon that gets a signal at a step of its own, SIGKILL mostly, and the steps of a reload at which it can.

`text()` is a script as `tests.support.upgrades.prepared` takes it: it runs lbproxy with each of the steps hooked. A
process that is about to take a step, or has just taken it, looks for its name and the step's in a file, and gets the
signal if they are there. Only what is interpreted can be hooked, which lbproxy.process and lbproxy.control are.

Those of an upgrade are in tests/support/killing_upgrades.py.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

ALONE: Final = (
    "before lbproxy.process.reloading:Reloading._read_file",
    "before lbproxy.process.wiring:Wiring.draft",
    "after lbproxy.process.wiring:Wiring.draft",
    "before lbproxy.process.listeners:Listeners.prepare",
    "before lbproxy.process.applying:open_access_log",
    "after lbproxy.process.applying:open_access_log",
    "before lbproxy.process.admin_address:AdminAddress.prepare",
    "after lbproxy.process.admin_address:AdminAddress.prepare",
    "before lbproxy.process.wiring:Wiring.adopt",
    "before lbproxy.process.controller:Controller.adopt",
    "after lbproxy.process.controller:Controller.adopt",
    "before lbproxy.process.listeners:Listeners.adopt",
    "after lbproxy.process.listeners:Listeners.adopt",
    "before lbproxy.process.access_log:AccessLogs.use",
    "before lbproxy.process.controller:Controller.files_read",
    "after lbproxy.process.controller:Controller.files_read",
)
"""Of a process that is alone, in their order."""
CONTROLLER: Final = (
    "before lbproxy.process.reloading:Reloading._read_file",
    "before lbproxy.process.wiring:Wiring.draft",
    "before lbproxy.process.workers.control_process:open_door",
    "after lbproxy.process.workers.control_process:open_door",
    "before lbproxy.process.admin_address:AdminAddress.prepare",
    "before lbproxy.process.workers.crew:Crew.prepare",
    "after lbproxy.process.workers.crew:Crew.prepare",
    "before lbproxy.process.controller:Controller.adopt",
    "before lbproxy.process.workers.control_process:ControlProcess._change_doors",
    "after lbproxy.process.workers.control_process:ControlProcess._change_doors",
    "before lbproxy.process.workers.crew:Crew.commit",
    "after lbproxy.process.workers.crew:Crew.commit",
    "before lbproxy.process.controller:Controller.files_read",
)
WORKER: Final = (
    "before lbproxy.process.workers.agent:Agent._prepare",
    "before lbproxy.process.workers.agent:Agent._sockets_of",
    "before lbproxy.process.wiring:Wiring.draft",
    "before lbproxy.process.applying:Applying.prepare",
    "after lbproxy.process.applying:Applying.prepare",
    "after lbproxy.process.workers.agent:Agent._prepare",
    "before lbproxy.process.workers.agent:Agent._commit",
    "before lbproxy.process.applying:Applying.adopt",
    "before lbproxy.process.listeners:Listeners.adopt",
    "after lbproxy.process.applying:Applying.adopt",
    "after lbproxy.process.workers.agent:Agent._commit",
)
SUPERVISOR: Final = (
    "before lbproxy.process.workers.supervisor:Supervisor._take_sockets",
    "after lbproxy.process.workers.supervisor:Supervisor._take_sockets",
    "before lbproxy.process.workers.supervisor:Supervisor._take_config",
    "after lbproxy.process.workers.supervisor:Supervisor._take_config",
)

_TEXT = """
import asyncio, functools, importlib, inspect, os, pathlib, signal, sys

FILE = pathlib.Path({file!r})
BORN_OF = os.getppid() if "LBPROXY_UPGRADE_FD" in os.environ else 0


def _look(step):
    try:
        wanted = FILE.read_text()
    except OSError:
        return
    number, old, side, who, *words = wanted.split()
    comm = pathlib.Path("/proc/self/comm").read_text().strip()
    is_member = comm.startswith("lbproxy-")
    if step != " ".join(words) or who not in ("*", comm.removeprefix("lbproxy-") if is_member else "main"):
        return
    if side not in ("*", "new" if BORN_OF == int(old) else "old"):
        return
    try:
        FILE.unlink()
    except FileNotFoundError:
        return
    part = FILE.with_suffix(".fell-part")
    part.write_text(str(os.getpid()))
    part.rename(FILE.with_suffix(".fell"))
    to_all = int(number) not in (signal.SIGKILL, signal.SIGSTOP)  # the main process is whom it is told
    os.kill(os.getppid() if is_member and to_all else os.getpid(), int(number))


def _hook(what):
    module, _, path = what.partition(":")
    owner = importlib.import_module(module)
    *classes, name = path.split(".")
    for item in classes:
        owner = getattr(owner, item)
    real = getattr(owner, name)

    @functools.wraps(real)
    def hooked(*arguments, **named):
        _look("before " + what)
        found = real(*arguments, **named)
        _look("after " + what)
        return found

    @functools.wraps(real)
    async def hooked_task(*arguments, **named):
        _look("before " + what)
        found = await real(*arguments, **named)
        _look("after " + what)
        return found

    setattr(owner, name, hooked_task if inspect.iscoroutinefunction(real) else hooked)


for what in {steps!r}:
    _hook(what)
{more}
from lbproxy.cli import main

sys.exit(main())
"""


def text(file: Path, steps: Iterable[str] = (*ALONE, *CONTROLLER, *WORKER, *SUPERVISOR), more: str = "") -> str:
    """file: where `arm` writes. more: code that comes after the hooks."""
    return _TEXT.format(file=str(file), steps=sorted({step.partition(" ")[2] for step in steps}), more=more)


def arm(
    file: Path,
    step: str,
    who: str = "*",
    *,
    number: signal.Signals = signal.SIGKILL,
    side: Literal["*", "old", "new"] = "*",
    old: int = 0,
) -> None:
    """Who takes this step next gets the signal. who: the name of a process of several, as in crew.py, or `main`; `*`:
    any. side: of an upgrade from the process `old`. What is no SIGKILL and no SIGSTOP goes to the main process."""
    file.with_suffix(".fell").unlink(missing_ok=True)
    part = file.with_suffix(".part")
    part.write_text(f"{int(number)} {old} {side} {who} {step}")
    part.rename(file)


def disarm(file: Path) -> bool:
    """Nobody gets it any more. Was it still to come?"""
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    return True


def fallen(file: Path) -> int:
    """The id of the process that took the step; 0: none yet."""
    try:
        return int(file.with_suffix(".fell").read_text())
    except FileNotFoundError:
        return 0
