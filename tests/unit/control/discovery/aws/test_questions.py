from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from lbproxy.config.aws_model import Aws
from lbproxy.control.discovery.aws.ask import AwsError, needed
from lbproxy.control.discovery.aws.picture import Picture
from lbproxy.control.discovery.aws.questions import question

ARN = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/predict/0123456789abcdef"


class Account:
    """An account of AWS: groups, targets and instances as the test says. `asked`: what was asked."""

    def __init__(self) -> None:
        self.instances: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, list[dict[str, Any]]] = {}
        self.targets: list[dict[str, Any]] = []
        self.target_type = "instance"
        self.asked: list[tuple[str, Mapping[str, object]]] = []

    def start(self, name: str, address: str | None, state: str = "running", **more: object) -> None:
        self.instances[name] = {
            "InstanceId": name,
            "State": {"Name": state},
            "Placement": {"AvailabilityZone": "eu-central-1a"},
            **({} if address is None else {"PrivateIpAddress": address}),
            **more,
        }

    def call(self, service: str, operation: str, **given: Any) -> Mapping[str, Any]:
        self.asked.append((operation, given))
        if operation == "describe_auto_scaling_groups":
            names = given["AutoScalingGroupNames"]
            return {"AutoScalingGroups": [{"Instances": self.groups[name]} for name in names if name in self.groups]}
        if operation == "describe_target_groups":
            return {"TargetGroups": [{"TargetType": self.target_type}]}
        if operation == "describe_target_health":
            return {"TargetHealthDescriptions": self.targets}
        wanted = {item["Name"]: item["Values"] for item in given["Filters"]}
        ids = wanted.get("instance-id", list(self.instances))
        states = wanted.get("instance-state-name", [])
        found = [self.instances[name] for name in ids if name in self.instances]
        return {
            "Reservations": [{"Instances": [item]} for item in found if not states or item["State"]["Name"] in states]
        }

    def pages(self, service: str, operation: str, key: str, **given: Any) -> Sequence[Any]:
        return needed(self.call(service, operation, **given), key, operation)

    def close(self) -> None:
        pass


class Bench:
    def __init__(self, **aws: object) -> None:
        self.account = Account()
        self.name, self.title, self._look = question(Aws.model_validate(aws))

    def look(self) -> Picture:
        return self._look(self.account)

    def servers(self) -> list[str]:
        return [str(found.address) for found in self.look().found]


# --- EC2 --------------------------------------------------------------------------------------------------------------


def test_the_running_instances_with_the_tags() -> None:
    bench = Bench(ec2={"tags": {"app": "predict", "stage": "p*"}, "port": 5001})
    bench.account.start("i-2", "10.0.0.2")
    bench.account.start("i-1", "10.0.0.1")
    for number, state in enumerate(("pending", "stopping", "stopped", "shutting-down", "terminated")):
        bench.account.start(f"i-9{number}", f"10.0.9.{number}", state)
    picture = bench.look()
    assert [(item.name, str(item.address), item.zone) for item in picture.found] == [
        ("i-1:5001/10.0.0.1", "10.0.0.1:5001", "eu-central-1a"),
        ("i-2:5001/10.0.0.2", "10.0.0.2:5001", "eu-central-1a"),
    ]
    assert picture.lacking == [] and picture.says == {}
    ((operation, given),) = bench.account.asked
    assert (operation, given["Filters"]) == (
        "describe_instances",
        [
            {"Name": "tag:app", "Values": ["predict"]},
            {"Name": "tag:stage", "Values": ["p*"]},
            {"Name": "instance-state-name", "Values": ["running"]},
        ],
    )


def test_what_aws_filters_is_looked_at_again() -> None:
    """What is not running has no place, whatever the answer holds."""
    bench = Bench(ec2={"tags": {"app": "predict"}, "port": 5001})
    bench.account.start("i-1", "10.0.0.1", "stopping")
    bench.account.call = lambda *_, **__: {"Reservations": [{"Instances": [*bench.account.instances.values()]}]}  # type: ignore[method-assign]
    assert bench.servers() == []


@pytest.mark.parametrize(
    ("kind", "given", "address"),
    [
        ("private", {"PrivateIpAddress": "10.0.0.1", "PublicIpAddress": "203.0.113.1"}, "10.0.0.1:80"),
        ("public", {"PrivateIpAddress": "10.0.0.1", "PublicIpAddress": "203.0.113.1"}, "203.0.113.1:80"),
        ("ipv6", {"Ipv6Address": "2001:DB8::1"}, "[2001:db8::1]:80"),
        (
            "ipv6",
            {"NetworkInterfaces": [{"Ipv6Addresses": []}, {"Ipv6Addresses": [{"Ipv6Address": "2001:db8::2"}]}]},
            "[2001:db8::2]:80",
        ),
    ],
)
def test_which_address(kind: str, given: dict[str, Any], address: str) -> None:
    bench = Bench(ec2={"tags": {"app": "predict"}}, port=80, address=kind)
    bench.account.start("i-1", None, **given)
    assert bench.servers() == [address]


@pytest.mark.parametrize("kind", ["public", "ipv6"])
def test_an_instance_without_such_an_address_is_told(kind: str) -> None:
    bench = Bench(ec2={"tags": {"app": "predict"}}, port=80, address=kind)
    bench.account.start("i-1", "10.0.0.1")
    picture = bench.look()
    assert picture.found == [] and picture.lacking == [f"i-1 has no {kind} address"]


def test_no_instance_is_an_answer() -> None:
    assert Bench(ec2={"tags": {"app": "predict"}}, port=80).servers() == []


# --- Auto Scaling -----------------------------------------------------------------------------------------------------


def scaled(*members: tuple[str, str], health: str = "Healthy") -> Bench:
    """A group; `members` are numbers of instances and their states in the life cycle."""
    bench = Bench(auto_scaling_group="predict", port=80)
    bench.account.groups["predict"] = [
        {"InstanceId": f"i-{number}", "LifecycleState": state, "HealthStatus": health} for number, state in members
    ]
    for number, _ in members:
        bench.account.start(f"i-{number}", f"10.0.0.{number}")
    return bench


def test_the_instances_in_service() -> None:
    states = (
        "Pending",
        "Pending:Wait",
        "Pending:Proceed",
        "Standby",
        "EnteringStandby",
        "Detaching",
        "Terminating",
        "Terminating:Proceed",
        "Warmed:Stopped",
        "Warmed:Running",
    )
    bench = scaled(("1", "InService"), *((str(9 + number), state) for number, state in enumerate(states)))
    assert bench.servers() == ["10.0.0.1:80"]
    assert bench.look().waiting == {}


def test_who_is_about_to_be_terminated_is_no_server() -> None:
    bench = scaled(("1", "InService"), ("2", "Terminating:Wait"))
    picture = bench.look()
    assert [str(item.address) for item in picture.found] == ["10.0.0.1:80"]
    assert picture.waiting == {"i-2": "10.0.0.2"}


def test_what_the_group_says_of_health_is_shown_only() -> None:
    picture = scaled(("1", "InService"), health="Unhealthy").look()
    assert [str(item.address) for item in picture.found] == ["10.0.0.1:80"]
    assert picture.says == {"10.0.0.1:80": "Unhealthy"}


def test_an_instance_in_service_that_does_not_run_is_no_server() -> None:
    """A spot instance that was taken away: the group has not noticed yet."""
    bench = scaled(("1", "InService"), ("2", "InService"))
    bench.account.start("i-2", "10.0.0.2", "shutting-down")
    picture = bench.look()
    assert [str(item.address) for item in picture.found] == ["10.0.0.1:80"]
    assert picture.lacking == []


def test_an_instance_that_ec2_does_not_know_stays_where_it_was() -> None:
    """Answers of EC2 are behind those of Auto Scaling at times."""
    bench = scaled(("1", "InService"))
    del bench.account.instances["i-1"]
    picture = bench.look()
    assert picture.found == [] and picture.lacking == ["EC2 does not know i-1"]
    bench.account.start("i-1", "10.0.0.1")
    assert bench.servers() == ["10.0.0.1:80"]
    del bench.account.instances["i-1"]
    for _ in range(2):
        picture = bench.look()
        assert [str(item.address) for item in picture.found] == ["10.0.0.1:80"]
        assert picture.lacking == ["EC2 does not know i-1, which stays"]
    bench.account.groups["predict"] = []
    assert bench.servers() == []


def test_many_instances_are_asked_for_in_portions() -> None:
    bench = Bench(auto_scaling_group="predict", port=80)
    names = [f"i-{number:03}" for number in range(450)]
    bench.account.groups["predict"] = [{"InstanceId": name, "LifecycleState": "InService"} for name in names]
    for number, name in enumerate(names):
        bench.account.start(name, f"10.0.{number // 256}.{number % 256}")
    assert len(bench.servers()) == 450
    filters = [given["Filters"] for operation, given in bench.account.asked if operation == "describe_instances"]
    assert [len(item[0]["Values"]) for item in filters] == [200, 200, 50]  # type: ignore[index]


def test_a_group_that_is_not_there_is_no_answer() -> None:
    with pytest.raises(AwsError, match="there is no such group in this region"):
        Bench(auto_scaling_group="predict", port=80).look()


def test_an_empty_group_is_an_answer() -> None:
    bench = scaled()
    assert bench.servers() == []
    assert [operation for operation, _ in bench.account.asked] == ["describe_auto_scaling_groups"]


# --- target groups ----------------------------------------------------------------------------------------------------


def target(name: str, port: int, state: str, reason: str = "") -> dict[str, object]:
    health = {"State": state, "Reason": reason} if reason else {"State": state}
    return {"Target": {"Id": name, "Port": port, "AvailabilityZone": "eu-central-1b"}, "TargetHealth": health}


def test_targets_have_the_ports_with_which_they_are_registered() -> None:
    bench = Bench(target_group=ARN)
    bench.account.start("i-1", "10.0.0.1")
    bench.account.targets = [target("i-1", 5002, "healthy"), target("i-1", 5001, "healthy")]
    assert bench.servers() == ["10.0.0.1:5001", "10.0.0.1:5002"]
    assert bench.servers() and [operation for operation, _ in bench.account.asked].count("describe_target_groups") == 1


def test_a_port_of_the_config_counts() -> None:
    bench = Bench(target_group=ARN, port=9000)
    bench.account.start("i-1", "10.0.0.1")
    bench.account.targets = [target("i-1", 5001, "healthy")]
    assert bench.servers() == ["10.0.0.1:9000"]


def test_verdicts_are_shown_and_not_believed() -> None:
    bench = Bench(target_group=ARN)
    bench.account.target_type = "ip"
    states = ("healthy", "initial", "unused", "unavailable", "unhealthy", "unhealthy.draining")
    bench.account.targets = [target(f"10.0.0.{number}", 80, state) for number, state in enumerate(states, start=1)]
    bench.account.targets.append(target("10.0.0.7", 80, "unhealthy", "Target.Timeout"))
    picture = bench.look()
    assert [item.name for item in picture.found] == [f"10.0.0.{number}:80" for number in range(1, 8)]
    assert picture.says == {
        "10.0.0.5:80": "unhealthy",
        "10.0.0.6:80": "unhealthy.draining",
        "10.0.0.7:80": "unhealthy (Target.Timeout)",
    }
    assert {item.zone for item in picture.found} == {"eu-central-1b"}


def test_who_was_deregistered_drains() -> None:
    bench = Bench(target_group=ARN)
    bench.account.target_type = "ip"
    bench.account.targets = [target("10.0.0.1", 80, "draining", "Target.DeregistrationInProgress")]
    picture = bench.look()
    assert picture.found == [] and picture.says == {}


@pytest.mark.parametrize("kind", ["lambda", "alb"])
def test_targets_that_are_no_servers(kind: str) -> None:
    bench = Bench(target_group=ARN)
    bench.account.target_type = kind
    with pytest.raises(AwsError, match=f"of the type {kind}, which has no servers"):
        bench.look()


def test_what_is_no_address_is_refused() -> None:
    bench = Bench(target_group=ARN)
    bench.account.target_type = "ip"
    bench.account.targets = [target("nonsense", 80, "healthy")]
    with pytest.raises(ValueError, match="nonsense"):
        bench.look()


# --- names ------------------------------------------------------------------------------------------------------------


def test_sources_are_called_by_what_they_ask() -> None:
    made: dict[str, dict[str, Any]] = {
        "aws:ec2:app=predict,stage=p*": {"ec2": {"tags": {"app": "predict", "stage": "p*"}, "port": 1}},
        "aws:asg:predict": {"auto_scaling_group": "predict", "port": 1},
        "aws:target_group:predict": {"target_group": ARN},
        "aws:ecs:models/predict": {"ecs": {"cluster": "arn:aws:ecs:x:1:cluster/models", "service": "predict"}},
    }
    assert [Bench(**aws).name for aws in made.values()] == list(made)
    assert Bench(auto_scaling_group="predict", port=1).title == "AWS (Auto Scaling group predict)"
