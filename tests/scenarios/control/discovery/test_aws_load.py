"""Twenty instances that come and go under load, and AWS that fails meanwhile: no request does.

LBPROXY_FLEET_S=60 in the environment is what `make soak` does: for so many seconds, at five times the rate, with an
endpoint that hangs for as long.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.aws_endpoint import MOODS, AwsEndpoint, Instance
from tests.support.daemon import Entry, LbProxy
from tests.support.farm import Farm
from tests.support.ports import consecutive_ports
from tests.support.waiting import wait_until

FULL_S = float(os.environ.get("LBPROXY_FLEET_S", "0"))
RATE = 200.0 if FULL_S else 40.0
INTERVAL_S = 1
HOSTS = {f"i-{n:02}": f"127.0.1.{n}" for n in range(1, 21)}
FAULTS = ("throttled", "expired", "empty", "broken")


class Stage:
    """An Auto Scaling group of which the first ten instances are in service, and an lbproxy that follows it."""

    def __init__(self, folder: Path, stack: ExitStack, workers: int) -> None:
        self.aws = stack.enter_context(AwsEndpoint())
        self.farm = stack.enter_context(Farm())
        self.port = consecutive_ports(1)
        self.unfinished: list[str] = []
        self.aws.completing = self._completing
        for name, host in HOSTS.items():
            self.aws.instances[name] = Instance(host)
        self.members = list(HOSTS)[:10]
        for name in self.members:
            self.join(name)
        self.lb = LbProxy(
            {
                "workers": workers,
                "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
                "pools": {
                    "p": {
                        "discovery": {
                            "aws": {
                                "auto_scaling_group": "predict",
                                "port": self.port,
                                "interval": f"{INTERVAL_S}s",
                                "complete_lifecycle": True,
                            }
                        },
                        "health_check": {"interval": "200ms", "rise": 1, "timeout": "20s"},
                    }
                },
            },
            folder / "lb",
        )

    def _completing(self, name: str) -> None:
        if self.farm.at_work[HOSTS[name]]:
            self.unfinished.append(name)

    def join(self, name: str) -> None:
        self.farm.open(HOSTS[name], self.port)
        self.aws.group[name] = "InService"

    def used(self) -> list[str]:
        hosts = {str(server["address"]).partition(":")[0] for server in self.lb.server_status() if server["used"]}
        return [name for name, host in HOSTS.items() if host in hosts]

    def wait_used(self) -> None:
        wait_until(lambda: self.used() == sorted(self.members), f"{sorted(self.members)} to be used")

    def replace(self) -> None:
        """All instances are replaced, as by an instance refresh; each is gone as soon as its action is completed."""
        old, self.members = self.members, [name for name in HOSTS if name not in self.members]
        for name in self.members:
            self.join(name)
        wait_until(lambda: self.used() == sorted(HOSTS), "the new ones to be used")
        for name in old:
            self.aws.group[name] = "Terminating:Wait"
        for name in old:
            wait_until(lambda: name in self._completed(), f"the action of {name} to be completed")  # noqa: B023
            self.farm.close(HOSTS[name])
            del self.aws.group[name]
        self.aws.completed.clear()
        self.wait_used()

    def _completed(self) -> set[str]:
        return {line.split()[0] for line in list(self.aws.completed)}

    def source(self) -> Entry:
        sources = self.lb.pool_status()["discovery"]
        assert isinstance(sources, list)
        found: Entry = sources[0]
        return found

    def is_told(self, told: str) -> bool:
        return told in str(self.source()["error"])

    def fail(self, mood: str, for_s: float = 0.0) -> None:
        """The endpoint misbehaves for so long, and until the status says so; then it is well again."""
        self.aws.mood, began = mood, time.monotonic()
        wait_until(lambda: self.is_told(MOODS[mood]), f"the status to say {MOODS[mood]!r}")
        time.sleep(max(0.0, for_s - (time.monotonic() - began)))
        assert self.used() == sorted(self.members)
        told = self.source()
        assert told["servers"] == len(self.members) and told["error"] is not None
        assert float(str(told["age"])) >= time.monotonic() - began - INTERVAL_S, "but for an answer that was under way"
        self.aws.calm()
        n_looks = self.aws.count("DescribeAutoScalingGroups")
        wait_until(lambda: self.source()["error"] is None, "all to be well")
        if mood != "silent":  # the one that hangs must end first
            assert self.aws.count("DescribeAutoScalingGroups") <= n_looks + 2, "the next look, and one under way"


@contextmanager
def running(folder: Path, workers: int) -> Iterator[Stage]:
    with ExitStack() as stack:
        stage = Stage(folder, stack, workers)
        stage.lb.start(stage.aws.environ)
        try:
            stage.wait_used()
            with stage.farm.load(stage.lb.port("in"), RATE):
                yield stage
        except BaseException:
            stage.lb.kill()
            raise
        assert stage.unfinished == [] and stage.farm.cut == []
        stage.lb.stop()


@pytest.mark.slow
@pytest.mark.timeout(0 if FULL_S else 180)
@pytest.mark.parametrize("workers", [1, 2])
def test_no_request_is_lost_while_instances_come_and_go(tmp_path: Path, workers: int) -> None:
    with running(tmp_path, workers) as stage:
        until = time.monotonic() + FULL_S
        stage.replace()
        while time.monotonic() < until:
            stage.replace()
        assert stage.lb.metric("discovery_errors_total", pool="p") == 0


@pytest.mark.slow
@pytest.mark.timeout(0 if FULL_S else 180)
@pytest.mark.parametrize("workers", [1, 2])
def test_no_request_is_lost_while_aws_fails(tmp_path: Path, workers: int) -> None:
    with running(tmp_path, workers) as stage:
        for mood in FAULTS:
            stage.fail(mood, FULL_S / len(FAULTS))
        if FULL_S:
            stage.fail("silent", FULL_S)
        assert stage.lb.metric("discovery_errors_total", pool="p") >= len(FAULTS)
