from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from lbproxy.config.aws_model import Aws
from lbproxy.control.discovery.aws.ask import AwsError, needed
from lbproxy.control.discovery.aws.source import FIRST_WAIT_S, MAX_WAIT_S, TERMINATING, WOKEN_S, AwsSource
from lbproxy.control.discovery.source import Answer, Trouble

TARGET_GROUP = "arn:aws:elasticloadbalancing:us-west-2:123456789012:targetgroup/predict/0123456789abcdef"


def zone_of(name: str) -> str:
    """i-1 stands in the first zone, i-2 in the second."""
    return f"eu-central-1{'abcdefghi'[int(name[2:]) - 1]}"


class Bench:
    """A group of two instances, i-1 and i-2, whose states and errors are what the test says. Nobody waits."""

    def __init__(self, *, interval_s: float = 15.0, seed: int = 1, **aws: object) -> None:
        self.now = 100.0
        self.members = {"10.0.0.1", "10.0.0.2"}
        self.states = {"i-1": "InService", "i-2": "InService"}
        self.error: Exception | None = None
        self.late = False
        self.hooks = [{"LifecycleHookName": "drain", "LifecycleTransition": TERMINATING}]
        self.completed: list[str] = []
        self.refusal: AwsError | None = None
        self.refused = 0
        self.regions: list[str] = []
        self.is_closed = False
        self.zone: str | AwsError = "eu-central-1a"
        asked = {"auto_scaling_group": "predict", "port": 80, "interval": interval_s, **aws}
        self.source = AwsSource(
            Aws.model_validate(asked),
            lambda: self.now,
            self.members.__contains__,
            rng=random.Random(seed),
            make_ask=self.make_ask,
            zone=self.own_zone,
            in_thread=self.in_thread,
        )

    def own_zone(self) -> str:
        if isinstance(self.zone, AwsError):
            raise self.zone
        return self.zone

    async def far(self) -> list[str]:
        """The addresses of those in other zones, after a look."""
        answer = await self.source.look()
        assert not isinstance(answer, Trouble)
        return [found.address.host for found in answer if found.far]

    def make_ask(self, region: str) -> Bench:
        self.regions.append(region)
        return self

    async def in_thread(self, work: Callable[[], Any]) -> Any:
        if self.late:
            raise TimeoutError("no answer within 20 s")
        return work()

    def call(self, service: str, operation: str, **given: Any) -> Mapping[str, Any]:
        if self.error is not None:
            raise self.error
        match operation:
            case "describe_auto_scaling_groups":
                members = [{"InstanceId": name, "LifecycleState": state} for name, state in self.states.items()]
                return {"AutoScalingGroups": [{"Instances": members}]}
            case "describe_lifecycle_hooks":
                return {"LifecycleHooks": self.hooks}
            case "complete_lifecycle_action":
                if self.refusal is not None:
                    self.refused += 1
                    raise self.refusal
                assert (given["AutoScalingGroupName"], given["LifecycleActionResult"]) == ("predict", "CONTINUE")
                self.completed.append(f"{given['InstanceId']} {given['LifecycleHookName']}")
                return {}
        ids = given["Filters"][0]["Values"]
        found = [
            {
                "InstanceId": name,
                "PrivateIpAddress": f"10.0.0.{name[2:]}",
                "State": {"Name": "running"},
                "Placement": {"AvailabilityZone": zone_of(name)},
            }
            for name in ids
        ]
        return {"Reservations": [{"Instances": found}]}

    def pages(self, service: str, operation: str, key: str, **given: Any) -> Sequence[Any]:
        return needed(self.call(service, operation, **given), key, operation)

    def close(self) -> None:
        self.is_closed = True

    async def look(self) -> list[str] | str:
        self.now += self.source.wait_s
        answer = await self.source.look()
        return answer.why if isinstance(answer, Trouble) else [str(found.address) for found in answer]

    async def waits(self, n: int) -> list[float]:
        """After each of some looks."""
        found = []
        for _ in range(n):
            await self.look()
            found.append(self.source.wait_s)
        return found


async def test_a_look() -> None:
    bench = Bench()
    assert await bench.look() == ["10.0.0.1:80", "10.0.0.2:80"]
    assert (bench.source.name, bench.source.kind, bench.regions) == ("aws:asg:predict", "aws", [""])
    assert bench.source.recovered(2) == "AWS (Auto Scaling group predict) answers again, with 2 servers"
    assert bench.source.gone() == "AWS (Auto Scaling group predict) no longer has it"


async def test_looks_are_an_interval_apart_and_not_all_at_once() -> None:
    waits = await Bench(interval_s=60.0).waits(50)
    assert all(54.0 <= wait <= 60.0 for wait in waits) and len(set(waits)) > 40
    assert await Bench(interval_s=0.1).waits(1) == [1.0]


@pytest.mark.parametrize(
    ("aws", "region"),
    [
        ({"region": "eu-central-1"}, "eu-central-1"),
        ({"auto_scaling_group": None, "target_group": TARGET_GROUP}, "us-west-2"),
    ],
)
def test_the_region(aws: dict[str, Any], region: str) -> None:
    assert Bench(**aws).regions == [region]


# --- errors -----------------------------------------------------------------------------------------------------------


async def test_an_error_is_no_answer_and_the_next_look_comes_soon() -> None:
    bench = Bench(interval_s=60.0)
    bench.error = AwsError("DescribeAutoScalingGroups: ExpiredToken: words")
    assert await bench.look() == "DescribeAutoScalingGroups: ExpiredToken: words"
    assert FIRST_WAIT_S <= bench.source.wait_s <= 2 * FIRST_WAIT_S
    bench.error = None
    assert await bench.look() == ["10.0.0.1:80", "10.0.0.2:80"]
    assert bench.source.wait_s >= 54.0


async def test_waits_grow_to_their_bound() -> None:
    for seed in range(20):
        bench = Bench(interval_s=60.0, seed=seed)
        bench.error = AwsError("no")
        waits = await bench.waits(200)
        for number, wait in enumerate(waits[:5], start=1):
            assert FIRST_WAIT_S <= wait <= min(MAX_WAIT_S, 2.0**number)
        assert max(waits) <= MAX_WAIT_S and max(waits) > 25.0 and min(waits[5:]) >= FIRST_WAIT_S


@pytest.mark.parametrize(("is_throttled", "most_s"), [(False, 5.0), (True, MAX_WAIT_S)])
async def test_who_can_answer_again_is_asked_within_an_interval_unless_he_asked_for_peace(
    is_throttled: bool, most_s: float
) -> None:
    bench = Bench(interval_s=5.0)
    bench.error = AwsError("no", is_throttled=is_throttled)
    waits = await bench.waits(500)
    assert most_s * 0.9 < max(waits) <= most_s


async def test_who_is_late_is_no_answer() -> None:
    bench = Bench()
    bench.late = True
    assert await bench.look() == "no answer within 20 s"


@pytest.mark.parametrize("error", [KeyError("InstanceId"), ValueError("'x' is no address")])
async def test_an_answer_that_makes_no_sense_is_none(error: Exception) -> None:
    bench = Bench()
    bench.error = error
    assert "an answer that is not understood" in await bench.look()


async def test_a_library_that_is_gone_is_told_with_the_command() -> None:
    bench = Bench()
    bench.error = ImportError("No module named 'boto3'")
    assert await bench.look() == "boto3 cannot be imported (No module named 'boto3'); pip install 'lbproxy[aws]'"


async def test_a_failed_connect_is_a_reason_to_look_but_not_all_the_time() -> None:
    bench = Bench()
    bench.source.wake()
    assert bench.source.woken.is_set(), "nobody has looked yet"
    bench.source.woken.clear()
    await bench.look()
    bench.now += WOKEN_S - 0.1
    bench.source.wake()
    assert not bench.source.woken.is_set()
    bench.now += 0.1
    bench.source.wake()
    assert bench.source.woken.is_set()
    bench.source.woken.clear()
    bench.error = AwsError("no")
    await bench.look()
    bench.now += 100.0
    bench.source.wake()
    assert not bench.source.woken.is_set(), "the back-off is not cut short"


async def test_defects_of_servers_are_told_some_of_them() -> None:
    bench = Bench(address="public")
    bench.states = {f"i-{number}": "InService" for number in range(5)}
    assert await bench.look() == []
    told = "; ".join(f"i-{number} has no public address" for number in range(3))
    assert bench.source.lacking == f"{told} and 2 more"


async def test_connections_are_closed_at_the_end() -> None:
    bench = Bench()

    def emit(answer: Answer) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        await bench.source.watch(emit)
    assert bench.is_closed


# --- zones ------------------------------------------------------------------------------------------------------------


async def test_without_the_key_nobody_is_far() -> None:
    bench = Bench()
    bench.zone = AwsError("nobody is to ask")
    assert await bench.far() == [] and bench.source.lacking == ""


async def test_servers_of_other_zones_are_far() -> None:
    assert await Bench(prefer_zone=True).far() == ["10.0.0.2"]
    named = Bench(prefer_zone=True, zone="eu-central-1b")
    named.zone = AwsError("nobody is to ask")
    assert await named.far() == ["10.0.0.1"] and named.source.lacking == ""


async def test_until_the_own_zone_is_known_nobody_is_far() -> None:
    bench = Bench(prefer_zone=True)
    bench.zone = AwsError("which zone is this? no answer; set `zone`")
    assert await bench.far() == []
    assert bench.source.lacking == "which zone is this? no answer; set `zone`"
    bench.zone = "eu-central-1b"
    assert await bench.far() == ["10.0.0.1"] and bench.source.lacking == ""
    bench.zone = AwsError("it is not asked for again")
    assert await bench.far() == ["10.0.0.1"] and bench.source.lacking == ""


# --- instances that wait for their end --------------------------------------------------------------------------------


def draining(**aws: object) -> Bench:
    """i-2 is about to be terminated."""
    given: dict[str, Any] = {"complete_lifecycle": True, **aws}
    bench = Bench(**given)
    bench.states["i-2"] = "Terminating:Wait"
    return bench


async def test_the_action_is_completed_when_no_pool_has_the_server_any_more(caplog: pytest.LogCaptureFixture) -> None:
    bench = draining()
    for _ in range(3):
        assert await bench.look() == ["10.0.0.1:80"]
        assert bench.completed == [], "something is in flight there"
    bench.members.remove("10.0.0.2")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            await bench.look()
    assert bench.completed == ["i-2 drain"]
    assert "instance i-2 is drained, its lifecycle action is completed" in caplog.text


async def test_the_last_request_is_a_reason_to_look() -> None:
    bench = draining()
    await bench.look()
    for ip, is_awaited in (("10.0.0.1", False), ("10.0.0.2", True)):
        bench.source.left(ip)
        assert bench.source.woken.is_set() is is_awaited
    idle = draining(complete_lifecycle=False)
    await idle.look()
    idle.source.left("10.0.0.2")
    assert not idle.source.woken.is_set()


async def test_at_the_first_sight_nothing_is_completed() -> None:
    """The answer is not in force yet: the server may have traffic."""
    bench = draining()
    bench.members.clear()
    await bench.look()
    assert bench.completed == []
    await bench.look()
    assert bench.completed == ["i-2 drain"]


async def test_without_the_key_nothing_is_completed() -> None:
    bench = draining(complete_lifecycle=False)
    bench.members.clear()
    await bench.waits(3)
    assert bench.completed == []


async def test_what_cannot_be_completed_is_told_and_tried_again() -> None:
    bench = draining()
    bench.members.remove("10.0.0.2")
    bench.refusal = AwsError("CompleteLifecycleAction: AccessDenied: words")
    await bench.waits(2)
    told = "the lifecycle action of i-2 is not completed: CompleteLifecycleAction: AccessDenied: words"
    assert bench.source.lacking == told
    bench.refusal = None
    await bench.look()
    assert bench.completed == ["i-2 drain"] and bench.source.lacking == ""


async def test_a_refusal_does_not_hold_up_the_answer_once_for_each() -> None:
    bench = draining()
    bench.states = dict.fromkeys(("i-2", "i-3", "i-4"), "Terminating:Wait")
    bench.members.clear()
    bench.refusal = AwsError("no")
    await bench.waits(3)
    assert bench.refused == 2, "one for each look but the first"
    bench.refusal = None
    await bench.look()
    assert bench.completed == ["i-2 drain", "i-3 drain", "i-4 drain"]


async def test_what_somebody_else_has_completed_is_done() -> None:
    bench = draining()
    bench.members.remove("10.0.0.2")
    bench.refusal = AwsError("CompleteLifecycleAction: ValidationError: No active Lifecycle Action found with i-2")
    await bench.waits(3)
    assert bench.source.lacking == ""


async def test_the_hook_of_several_must_be_named() -> None:
    hooks = [
        {"LifecycleHookName": "logs", "LifecycleTransition": TERMINATING},
        {"LifecycleHookName": "drain", "LifecycleTransition": TERMINATING},
        {"LifecycleHookName": "start", "LifecycleTransition": "autoscaling:EC2_INSTANCE_LAUNCHING"},
    ]
    bench = draining()
    bench.members.remove("10.0.0.2")
    bench.hooks = hooks
    await bench.waits(2)
    assert "which hook? the group has logs, drain; name it in `complete_lifecycle`" in bench.source.lacking
    named = draining(complete_lifecycle="logs")
    named.members.remove("10.0.0.2")
    named.hooks = hooks
    await named.waits(2)
    assert named.completed == ["i-2 logs"]


async def test_an_instance_that_waits_again_is_completed_again() -> None:
    bench = draining()
    bench.members.remove("10.0.0.2")
    await bench.waits(3)
    bench.states["i-2"] = "InService"
    await bench.look()
    bench.states["i-2"] = "Terminating:Wait"
    await bench.waits(3)
    assert bench.completed == ["i-2 drain", "i-2 drain"]
