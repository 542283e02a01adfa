"""A daemon that dies by SIGKILL at a step of its own, and the steps of a reload at which it can.

`text()` is a script as `tests.support.upgrades.prepared` takes it: it runs lbproxy with each of the steps hooked. A
process that is about to take a step, or has just taken it, looks for its name and the step's in a file, and dies if
they are there. Only what is interpreted can be hooked, which lbproxy.process and lbproxy.control are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

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
import functools, importlib, inspect, os, pathlib, signal, sys

FILE = pathlib.Path({file!r})


def _look(step):
    try:
        wanted = FILE.read_text()
    except OSError:
        return
    who = pathlib.Path("/proc/self/comm").read_text().strip().removeprefix("lbproxy-")
    if wanted in (f"{{who}} {{step}}", f"* {{step}}"):
        FILE.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


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

from lbproxy.cli import main

sys.exit(main())
"""


def text(file: Path) -> str:
    """file: where `arm` writes."""
    steps = {step.partition(" ")[2] for step in (*ALONE, *CONTROLLER, *WORKER, *SUPERVISOR)}
    return _TEXT.format(file=str(file), steps=sorted(steps))


def arm(file: Path, step: str, who: str = "*") -> None:
    """Who takes this step next dies. who: the name of a process of several, as in crew.py; `*`: any."""
    part = file.with_suffix(".part")
    part.write_text(f"{who} {step}")
    part.rename(file)
