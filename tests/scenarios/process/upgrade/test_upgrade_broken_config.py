"""The config file breaks at each step of an upgrade: before the new process has read it the old one goes on, and says
where the file is wrong; after that the new one serves with what it has read, and a reload says it.

LBPROXY_UPGRADE_STEPS=all in the environment breaks it at every step, as in test_upgrade_killed.py.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.scenarios.process.test_reload import get
from tests.support.killing import arm, text
from tests.support.killing_upgrades import NEW, NEW_CONTROLLER, NEW_SUPERVISOR, NEW_WORKER, OLD, OLD_SUPERVISOR
from tests.support.origin import Origin
from tests.support.upgrades import READY_S, Chain, wait_ended
from tests.support.waiting import wait_until

IS_FULL: Final = os.environ.get("LBPROXY_UPGRADE_STEPS") == "all"
READ: Final = "lbproxy.config.loader:load_file"
BROKEN: Final = "listeners: []\n"
PLACE: Final = ":1:12: listeners: needs at least one listener"

_BREAKS = """
_looked = _look


def _look(step):
    _looked(step)
    try:
        is_its = FILE.with_suffix(".fell").read_text() == str(os.getpid())
    except FileNotFoundError:
        return
    if is_its and not pathlib.Path({broken!r}).exists():
        part = pathlib.Path({broken!r} + ".part")
        part.write_text({text!r})
        part.rename({config!r})
        pathlib.Path({broken!r}).touch()


_hook({read!r})
"""


class Breaking:
    """A daemon whose config file breaks when a process takes a step. It has all that some steps are about."""

    def __init__(self, directory: Path, workers: int, origin: Origin, steps: Sequence[str]) -> None:
        config: dict[str, Any] = {
            "workers": workers,
            "state_file": "state.json",
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {"p": {"servers": [origin.address]}},
        }
        self._file, self._broken = directory / "step", directory / "broken"
        more = _BREAKS.format(broken=str(self._broken), config=str(directory / "lb.yaml"), text=BROKEN, read=READ)
        options = "--pid-file", str(directory / "lb.pid")
        self.lb = Chain(config, directory, *options, text=text(self._file, steps, more))
        self.lb.may_complain = True  # a new process that can't read it says so

    def at(self, side: str, step: str) -> tuple[int, dict[str, Any]]:
        """What comes of an upgrade during which it breaks."""
        good = self.lb.config_path.read_text()
        self._broken.unlink(missing_ok=True)
        arm(self._file, step, number=0, side=side, old=self.lb.current)  # type: ignore[arg-type]  # 0: no signal
        try:
            before = self.lb.current
            found = self.lb.ask()
            if found[0] == 200:
                self.lb.pids.append(found[1]["new"]["pid"])  # at once, so that it is killed whatever comes
            wait_until(self._broken.exists, f"a process to come to {step}", READY_S)
            assert self.lb.config_path.read_text() == BROKEN
            assert get(self.lb.port("in"))[0] == 200
            if found[0] == 200:
                wait_ended(before)
            self._reload_says_it()
        finally:
            self.lb.config_path.write_text(good)
        assert get(self.lb.port("in"))[0] == 200
        return found

    def _reload_says_it(self) -> None:
        said = len(self.lb.stderr)
        os.kill(self.lb.current, signal.SIGHUP)
        told = f"reload by SIGHUP: the config file cannot be used, the one in force stays: {self.lb.config_path}{PLACE}"
        wait_until(lambda: told in self.lb.stderr[said:], "the one that serves to say what is wrong")


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as made:
        yield made


def some(steps: Sequence[str]) -> Sequence[str]:
    return steps if IS_FULL else (steps[0], steps[len(steps) // 2], steps[-1])


def since(steps: Sequence[str], step: str) -> Sequence[str]:
    return steps[steps.index(step) :]


RECEIVED: Final = NEW[:2]
"""The sockets come first, then the file is read."""
assert NEW_SUPERVISOR[:2] == RECEIVED


# Where the old process takes a step while the new one reads, either can be first: those steps are in neither test.
@pytest.mark.parametrize(
    ("workers", "old"),
    [
        (1, (OLD[0], "before lbproxy.process.upgrade.channel:send_sockets")),
        (2, (OLD_SUPERVISOR[0], "before lbproxy.process.workers.heir:Heir._greeted")),
    ],
    ids=["one process", "two workers"],
)
def test_before_the_new_process_has_read_it_the_old_one_goes_on(
    origin: Origin, tmp_path: Path, workers: int, old: Sequence[str]
) -> None:
    breaking = Breaking(tmp_path, workers, origin, [*old, *RECEIVED])
    steps = [*(("old", step) for step in old), *(("new", step) for step in (*RECEIVED, f"before {READ}"))]
    with breaking.lb as lb:
        for side, step in steps:
            said = len(lb.stderr)
            status, told = breaking.at(side, step)
            assert status == 422 and any(f"{lb.config_path}{PLACE}" in why for why in told["problems"]), (step, told)
            assert f"{lb.config_path}{PLACE}" in lb.stderr[said:].partition("no upgrade, this process goes on: ")[2], (
                step
            )
            assert lb.current == lb.pid
        assert lb.metric("upgrades_total", result="failure") == len(steps)


@pytest.mark.parametrize(
    ("workers", "side", "steps"),
    [
        (1, "new", (f"after {READ}", *some(NEW[2:]))),
        (1, "old", some(since(OLD, "before lbproxy.process.keeping:Keeping.last_snapshot"))),
        (2, "new", (f"after {READ}", *some(NEW_SUPERVISOR[2:]))),
        (2, "new", some(NEW_CONTROLLER)),
        (2, "new", some(NEW_WORKER)),
        (2, "old", some(since(OLD_SUPERVISOR, "before lbproxy.process.workers.heir:Heir.go"))),
    ],
    ids=["new", "old", "new supervisor", "new controller", "new worker", "old supervisor"],
)
def test_after_that_the_new_one_serves_with_what_it_has_read(
    origin: Origin, tmp_path: Path, workers: int, side: str, steps: Sequence[str]
) -> None:
    breaking = Breaking(tmp_path, workers, origin, [step for step in steps if READ not in step])
    with breaking.lb as lb:
        for step in steps:
            old = lb.current
            status, told = breaking.at(side, step)
            assert status == 200, (step, told)
            assert lb.current != old, step
        assert lb.metric("upgrades_total", result="failure") == 0
