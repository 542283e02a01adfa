"""Either lbproxy of an upgrade gets a signal at each of its steps: one whole lbproxy is left that serves, or none.

SIGKILL of one leaves the other one, but at the ends, where there is no other one yet, or none any more. SIGTERM is
meant for both until the new one serves. Who is stopped by SIGSTOP is given up if it is the new one, and waited for if
it is the old one; a worker is killed soon. Requests are lost by none but who is killed, and only those in its hands.

LBPROXY_UPGRADE_STEPS=all in the environment sends each signal at every step, as `make soak` does for ten minutes.
Otherwise one process is killed at the first step, at one in the middle and at the last one, and a worker at one step.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import pytest

from tests.scenarios.process.upgrade.test_handing import patch
from tests.support.daemon import STOP_S
from tests.support.killing import arm, disarm, fallen
from tests.support.killing_upgrades import (
    NEW,
    NEW_CONTROLLER,
    NEW_SUPERVISOR,
    NEW_WORKER,
    OLD,
    OLD_CONTROLLER,
    OLD_SUPERVISOR,
    OLD_WORKER,
    Traffic,
    Victim,
)
from tests.support.origin import Origin
from tests.support.upgrades import READY_S, is_alive
from tests.support.waiting import wait_until

IS_FULL: Final = os.environ.get("LBPROXY_UPGRADE_STEPS") == "all"
N_CLIENTS: Final = 3
_BEFORE_ANY: Final = "before lbproxy.process.workers.succession:Succession._hand_over"
"""Here nobody knows yet that there was to be an upgrade."""
Side = Literal["old", "new"]
long = pytest.mark.skipif(not IS_FULL, reason="takes minutes: LBPROXY_UPGRADE_STEPS=all, as make soak has it")


class Siege:
    """Upgrades of one lbproxy after the other, each with a signal at a step. who: see `arm`."""

    def __init__(self, lb: Victim, side: Side, who: str, number: signal.Signals) -> None:
        self.lb = lb
        self._side = side
        self._who = who
        self._number = number
        self._weight = 1
        self.main = 0
        self._n_taken = 0
        self._started()

    def _started(self) -> None:
        self.main = self.lb.pid
        wait_until(self.lb.serves, "all of it to serve")

    def at(self, step: str) -> str:
        """An upgrade with the signal at this step: who is left, "old", "new", or "none"."""
        lb, said = self.lb, len(self.lb.stderr)
        self._weight += 1
        patch(lb, lb.server, b'{"weight": %d}' % self._weight)
        wait_until(lambda: lb.kept_weight() == self._weight, "the state file to say it")
        old = self.main
        self._n_taken = lb.stderr.count("has taken over from")
        traffic = Traffic(lb.in_port, lb.in_port, str(lb.unix))
        try:
            traffic.wait_more()
            arm(lb.file, step, self._who, number=self._number, side=self._side, old=old)
            os.kill(old, signal.SIGUSR2)
            wait_until(lambda: fallen(lb.file), f"the signal {step}; {lb.stderr[said:]}", READY_S)
            if self._number == signal.SIGSTOP:
                self._stopped(fallen(lb.file))
            main = wait_until(self._settled, f"one whole lbproxy, or none, {step}")
            if main > 0:
                traffic.wait_more()
        finally:
            came = traffic.end()
            lb.over.unlink(missing_ok=True)
        if main == old and step != _BEFORE_ANY:  # which it is before it knows that the other one is gone
            wait_until(lambda: "no upgrade, this process goes on: " in lb.stderr[said:], f"it to say so, {step}")
        left = "none" if main < 0 else "old" if main == old else "new"
        told = f"{self._number.name} {step}: {left} is left; {dict(came)}; {lb.stderr[said:]}"
        self._check(left, main, came, told)
        return left

    def _stopped(self, pid: int) -> None:
        """The new one is given up; the old one goes on after a while. A worker's supervisor kills it."""
        lb = self.lb
        if self._who != "main":
            wait_until(lambda: not is_alive(pid), "it to be killed")
            return
        if self._side == "new":
            lb.over.touch()
            wait_until(lambda: "no upgrade, this process goes on" in lb.stderr, "it to be given up")
            return
        wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "it to stop")
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: lb.stderr.count("has taken over from") > self._n_taken, "it to hand over all the same")

    def _settled(self) -> int:
        """Who is left: -1: nobody, 0: that is open."""
        return -1 if self.lb.is_gone else self.lb.whole()

    def _check(self, left: str, main: int, came: dict[str, int], told: str) -> None:
        lb = self.lb
        assert came.keys() <= {"200", "cut", "cut unix", "ECONNREFUSED", "ENOENT"}, told
        is_killed = self._number == signal.SIGKILL or (self._number == signal.SIGSTOP and self._who != "main")
        # The kernel closes what a killed process has one by one, the newest first, and lets others run meanwhile: who
        # has lost a connection may come again, and wait at the listening socket that is closed after that.
        may_cut = 2 * N_CLIENTS if is_killed else 0
        assert came.get("cut", 0) + came.get("cut unix", 0) <= may_cut, told
        assert lb.kept_weight() == self._weight, told
        assert "Traceback" not in told and "crashed" not in told, told
        if left == "none":
            assert lb.process is not None
            status = lb.process.wait(STOP_S)
            is_killed = self._side == "old" and self._number == signal.SIGKILL
            if self.main == lb.pid:
                assert status == (-signal.SIGKILL if is_killed else 0), told
            lb.start()
            self._started()
            return
        self.main = main
        lb.pids.append(main)
        wait_until(lambda: lb.pid_file.read_text() == f"{self.main}\n", f"the pid file to name it: {told}")
        [server] = lb.server_status()
        assert server["weight"] == self._weight, told
        if left == "old":
            assert not came.get("ECONNREFUSED") and not came.get("ENOENT"), told

    def end(self) -> None:
        """An upgrade as any other still comes off, and nothing is left of what was."""
        lb, old = self.lb, self.main
        assert not disarm(lb.file)
        os.kill(old, signal.SIGUSR2)
        self.main = wait_until(lambda: (main := lb.whole()) != old and main, "an upgrade", READY_S)
        lb.pids.append(self.main)
        os.kill(self.main, signal.SIGTERM)
        wait_until(lambda: lb.is_gone, "all to end")
        left = {path.name for path in lb.directory.iterdir()}
        assert left <= {"lb.yaml", "lbproxy", "stderr.log", "access.log", "state.json", "falls.fell"}, left


def besiege(
    directory: Path, workers: int, side: Side, who: str, number: signal.Signals, steps: Sequence[str]
) -> dict[str, str]:
    """Who was left after a signal at each step."""
    with Origin() as origin, Victim(workers, origin, directory) as lb:
        siege = Siege(lb, side, who, number)
        found = {step: siege.at(step) for step in steps}
        siege.end()
    return found


def some(steps: Sequence[str]) -> Sequence[str]:
    """Three of them, but when all are wanted."""
    return steps if IS_FULL else (steps[0], steps[len(steps) // 2], steps[-1])


def expected(steps: Sequence[str], *parts: tuple[str, str]) -> dict[str, str]:
    """Who is left. parts: from which step on it is whom."""
    found: dict[str, str] = {}
    left, begins = "", dict(parts)
    for step in steps:
        left = begins.get(step, left)
        found[step] = left
    return found


def chosen(steps: Sequence[str], left: dict[str, str]) -> dict[str, str]:
    """Of these steps only."""
    return {step: left[step] for step in steps}


def of(steps: Sequence[str], part: str) -> str:
    """The one step that contains this."""
    [found] = [step for step in steps if part in step]
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestOneProcess:
    def test_the_old_one_is_killed(self, tmp_path: Path) -> None:
        steps = some(OLD)
        left = besiege(tmp_path / "lb", 1, "old", "main", signal.SIGKILL, steps)
        assert left == chosen(steps, expected(OLD, (OLD[0], "none"), (OLD[1], "new")))

    def test_the_new_one_is_killed(self, tmp_path: Path) -> None:
        steps = some(NEW)
        left = besiege(tmp_path / "lb", 1, "new", "main", signal.SIGKILL, steps)
        assert left == chosen(steps, expected(NEW, (NEW[0], "old"), (NEW[-1], "none")))

    @long
    def test_the_old_one_is_told_to_stop(self, tmp_path: Path) -> None:
        steps = some(OLD)
        left = besiege(tmp_path / "lb", 1, "old", "main", signal.SIGTERM, steps)
        serves_at = of(OLD, "before lbproxy.process.upgrade.taking_over")
        assert left == chosen(steps, expected(OLD, (OLD[0], "none"), (serves_at, "new")))

    @long
    def test_the_new_one_is_told_to_stop(self, tmp_path: Path) -> None:
        steps = some(NEW)
        left = besiege(tmp_path / "lb", 1, "new", "main", signal.SIGTERM, steps)
        told_at = of(NEW, "after lbproxy.process.upgrade.arriving:Arrival.ready")
        assert left == chosen(steps, expected(NEW, (NEW[0], "old"), (told_at, "none")))

    @long
    def test_the_old_one_is_stopped_for_a_while(self, tmp_path: Path) -> None:
        steps = some(OLD)
        left = besiege(tmp_path / "lb", 1, "old", "main", signal.SIGSTOP, steps)
        assert set(left.values()) == {"new"}

    @long
    def test_the_new_one_hangs(self, tmp_path: Path) -> None:
        steps = some(NEW[:-1])
        left = besiege(tmp_path / "lb", 1, "new", "main", signal.SIGSTOP, steps)
        assert set(left.values()) == {"old"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(IS_FULL, reason="one step of TestTwoWorkers")
def test_a_new_worker_is_killed_as_it_begins_to_serve(tmp_path: Path) -> None:
    step = of(NEW_WORKER, "before lbproxy.process.workers.data_process:DataProcess._open")
    assert besiege(tmp_path / "lb", 2, "new", "1", signal.SIGKILL, [step]) == {step: "new"}


@long
@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestTwoWorkers:
    """who: the supervisor (`main`), the controller (`c`) or a worker."""

    def test_the_old_supervisor_is_killed(self, tmp_path: Path) -> None:
        steps = some(OLD_SUPERVISOR)
        left = besiege(tmp_path / "lb", 2, "old", "main", signal.SIGKILL, steps)
        assert left == chosen(steps, expected(OLD_SUPERVISOR, (OLD_SUPERVISOR[0], "none"), (OLD_SUPERVISOR[1], "new")))

    def test_the_new_supervisor_is_killed(self, tmp_path: Path) -> None:
        steps = some(NEW_SUPERVISOR)
        left = besiege(tmp_path / "lb", 2, "new", "main", signal.SIGKILL, steps)
        assert left == chosen(steps, expected(NEW_SUPERVISOR, (NEW_SUPERVISOR[0], "old"), (NEW_SUPERVISOR[-1], "none")))

    def test_the_old_controller_is_killed(self, tmp_path: Path) -> None:
        """It is who knows what is known of servers: until the new lbproxy has it, there is no upgrade without it."""
        steps = some(OLD_CONTROLLER)
        left = besiege(tmp_path / "lb", 2, "old", "c", signal.SIGKILL, steps)
        told_at = of(OLD_CONTROLLER, "after lbproxy.process.workers.succession:Succession._say_last")
        assert left == chosen(steps, expected(OLD_CONTROLLER, (OLD_CONTROLLER[0], "old"), (told_at, "new")))

    def test_an_old_worker_is_killed(self, tmp_path: Path) -> None:
        steps = some(OLD_WORKER)
        left = besiege(tmp_path / "lb", 2, "old", "1", signal.SIGKILL, steps)
        assert set(left.values()) == {"new"}

    def test_the_new_controller_is_killed(self, tmp_path: Path) -> None:
        steps = some(NEW_CONTROLLER)
        left = besiege(tmp_path / "lb", 2, "new", "c", signal.SIGKILL, steps)
        told_at = of(NEW_CONTROLLER, "after lbproxy.process.workers.succession:Succession.update")
        assert left == chosen(steps, expected(NEW_CONTROLLER, (NEW_CONTROLLER[0], "old"), (told_at, "new")))

    def test_a_new_worker_is_killed(self, tmp_path: Path) -> None:
        steps = some(NEW_WORKER)
        left = besiege(tmp_path / "lb", 2, "new", "1", signal.SIGKILL, steps)
        told_at = of(NEW_WORKER, "before lbproxy.process.workers.data_process:DataProcess._open")
        said_at = of(NEW_WORKER, "after lbproxy.process.workers.station:Station.prepared")
        assert left.pop(said_at, "old") in (
            "old",
            "new",
        )  # what it has said may be heard before its end is seen, or not
        steps = [step for step in steps if step != said_at]
        assert left == chosen(steps, expected(NEW_WORKER, (NEW_WORKER[0], "old"), (told_at, "new")))

    def test_an_old_worker_hangs(self, tmp_path: Path) -> None:
        left = besiege(tmp_path / "lb", 2, "old", "1", signal.SIGSTOP, some(OLD_WORKER))
        assert set(left.values()) == {"new"}

    def test_a_new_worker_hangs(self, tmp_path: Path) -> None:
        """There is no upgrade if it has not said that it could serve; else its successor is part of the new one."""
        steps = some(NEW_WORKER[1:])  # at the first one its loop has not run yet, which may take a minute
        left = besiege(tmp_path / "lb", 2, "new", "1", signal.SIGSTOP, steps)
        told_at = of(NEW_WORKER, "before lbproxy.process.workers.data_process:DataProcess._open")
        said_at = of(NEW_WORKER, "after lbproxy.process.workers.station:Station.prepared")
        assert left.pop(said_at, "new") in ("old", "new")  # the old one may have told it to serve by its end, or not
        steps = [step for step in steps if step != said_at]
        assert left == chosen(steps, expected(NEW_WORKER, (NEW_WORKER[0], "old"), (told_at, "new")))

    def test_the_old_supervisor_is_told_to_stop(self, tmp_path: Path) -> None:
        steps = some(OLD_SUPERVISOR)
        left = besiege(tmp_path / "lb", 2, "old", "main", signal.SIGTERM, steps)
        serves_at = of(OLD_SUPERVISOR, "before lbproxy.process.workers.supervisor:Supervisor._hand_over")
        assert left == chosen(steps, expected(OLD_SUPERVISOR, (OLD_SUPERVISOR[0], "none"), (serves_at, "new")))

    def test_the_new_supervisor_is_told_to_stop(self, tmp_path: Path) -> None:
        steps = some(NEW_SUPERVISOR)
        left = besiege(tmp_path / "lb", 2, "new", "main", signal.SIGTERM, steps)
        told_at = of(NEW_SUPERVISOR, "before lbproxy.process.workers.supervisor:Supervisor._let_serve")
        assert left == chosen(steps, expected(NEW_SUPERVISOR, (NEW_SUPERVISOR[0], "old"), (told_at, "none")))

    def test_the_old_supervisor_is_stopped_for_a_while(self, tmp_path: Path) -> None:
        left = besiege(tmp_path / "lb", 2, "old", "main", signal.SIGSTOP, some(OLD_SUPERVISOR))
        assert set(left.values()) == {"new"}

    def test_the_new_supervisor_hangs(self, tmp_path: Path) -> None:
        left = besiege(tmp_path / "lb", 2, "new", "main", signal.SIGSTOP, some(NEW_SUPERVISOR[:-1]))
        assert set(left.values()) == {"old"}
