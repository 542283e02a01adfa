from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from lbproxy.control.discovery.aws.ask import AwsError, needed
from lbproxy.control.discovery.aws.picture import Picture
from lbproxy.control.discovery.aws.tasks import Tasks

DEFINITION = "arn:aws:ecs:eu-central-1:1:task-definition/predict:7"
HOST = "arn:aws:ecs:eu-central-1:1:container-instance/models/h1"


class Account:
    def __init__(self) -> None:
        self.tasks: dict[str, dict[str, Any]] = {}
        self.mappings: list[dict[str, object]] = [{"containerPort": 5001, "protocol": "tcp"}]
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.state = "running"

    def add(self, name: str, *, last: str = "RUNNING", desired: str = "RUNNING", **more: object) -> None:
        arn = f"arn:aws:ecs:eu-central-1:1:task/models/{name}"
        self.tasks[arn] = {
            "taskArn": arn,
            "taskDefinitionArn": DEFINITION,
            "lastStatus": last,
            "desiredStatus": desired,
            "availabilityZone": "eu-central-1c",
            **more,
        }

    def call(self, service: str, operation: str, **given: Any) -> Mapping[str, Any]:
        self.asked.append((operation, given))
        match operation:
            case "list_tasks":
                return {"taskArns": list(self.tasks)}
            case "describe_tasks":
                return {"tasks": [self.tasks[arn] for arn in given["tasks"]], "failures": []}
            case "describe_task_definition":
                return {"taskDefinition": {"containerDefinitions": [{"portMappings": self.mappings}, {}]}}
            case "describe_container_instances":
                return {
                    "containerInstances": [
                        {"containerInstanceArn": arn, "ec2InstanceId": "i-1"} for arn in given["containerInstances"]
                    ]
                }
            case "describe_network_interfaces":
                ids = given["Filters"][0]["Values"]
                return {"NetworkInterfaces": [{"NetworkInterfaceId": name, "Association": PUBLIC} for name in ids]}
        item = {"InstanceId": "i-1", "PrivateIpAddress": "10.0.1.1", "State": {"Name": self.state}}
        return {"Reservations": [{"Instances": [item]}]}

    def pages(self, service: str, operation: str, key: str, **given: Any) -> Sequence[Any]:
        return needed(self.call(service, operation, **given), key, operation)

    def close(self) -> None:
        pass


PUBLIC = {"PublicIp": "203.0.113.9"}


def card(ip: str) -> dict[str, Any]:
    """A task with an address of its own."""
    details = [{"name": "networkInterfaceId", "value": "eni-1"}, {"name": "privateIPv4Address", "value": ip}]
    return {
        "attachments": [{"type": "Service Connect"}, {"type": "ElasticNetworkInterface", "details": details}],
        "containers": [{}, {"networkInterfaces": [{"ipv6Address": "2001:db8::1"}]}],
    }


def on_host(host_port: int, container_port: int = 5001, protocol: str = "tcp") -> dict[str, Any]:
    binding = {"containerPort": container_port, "hostPort": host_port, "protocol": protocol}
    return {"containerInstanceArn": HOST, "containers": [{"networkBindings": [binding]}]}


def look(account: Account, port: int = 0, kind: str = "private") -> Picture:
    return Tasks("models", "predict", port, kind).look(account)


def servers(picture: Picture) -> list[str]:
    return [str(found.address) for found in picture.found]


def test_the_tasks_that_run_and_are_to_run() -> None:
    account = Account()
    account.add("b", **card("10.0.0.2"))
    account.add("a", **card("10.0.0.1"))
    account.add("c", last="PENDING", **card("10.0.0.3"))
    account.add("d", desired="STOPPED", **card("10.0.0.4"))
    account.add("e", last="DEACTIVATING", **card("10.0.0.5"))
    picture = look(account)
    assert [(item.name, str(item.address), item.zone) for item in picture.found] == [
        ("a:5001/10.0.0.1", "10.0.0.1:5001", "eu-central-1c"),
        ("b:5001/10.0.0.2", "10.0.0.2:5001", "eu-central-1c"),
    ]
    assert picture.lacking == []
    assert account.asked[0] == (
        "list_tasks",
        {"cluster": "models", "serviceName": "predict", "desiredStatus": "RUNNING"},
    )


@pytest.mark.parametrize(("kind", "address"), [("public", "203.0.113.9:80"), ("ipv6", "[2001:db8::1]:80")])
def test_which_address(kind: str, address: str) -> None:
    account = Account()
    account.add("a", **card("10.0.0.1"))
    assert servers(look(account, 80, kind)) == [address]


def test_a_task_without_an_address_is_told() -> None:
    account = Account()
    account.add("a", **card(""))
    picture = look(account)
    assert picture.found == [] and picture.lacking == ["task a has no private address"]


def test_ports_of_hosts_are_found_by_those_of_containers() -> None:
    account = Account()
    account.add("a", **on_host(32768))
    account.add("b", **on_host(32769))
    assert servers(look(account)) == ["10.0.1.1:32768", "10.0.1.1:32769"]
    assert servers(look(account, 5001)) == ["10.0.1.1:32768", "10.0.1.1:32769"]
    picture = look(account, 9)
    assert picture.found == [] and "task a has port 9 of no container on its host" in picture.lacking


def test_udp_is_no_server() -> None:
    account = Account()
    account.add("a", **on_host(32768, protocol="udp"))
    assert look(account).found == []


def test_a_host_that_stops_has_no_servers() -> None:
    account = Account()
    account.add("a", **on_host(32768))
    account.state = "shutting-down"
    picture = look(account)
    assert picture.found == [] and picture.lacking == ["task a has no private address"]


def test_the_port_is_that_of_the_definition_which_is_asked_for_once() -> None:
    account = Account()
    tasks = Tasks("models", "predict", 0, "private")
    account.add("a", **card("10.0.0.1"))
    for _ in range(3):
        assert servers(tasks.look(account)) == ["10.0.0.1:5001"]
    assert [operation for operation, _ in account.asked].count("describe_task_definition") == 1
    account.asked.clear()
    assert servers(look(account, 80)) == ["10.0.0.1:80"]
    assert "describe_task_definition" not in [operation for operation, _ in account.asked]


@pytest.mark.parametrize(
    ("ports", "told"), [([80, 443], "predict:7 has 80, 443; set `port`"), ([], "predict:7 has none; set `port`")]
)
def test_a_definition_with_more_ports_than_one(ports: list[int], told: str) -> None:
    account = Account()
    account.add("a", **card("10.0.0.1"))
    account.mappings = [{"containerPort": port} for port in ports]
    with pytest.raises(AwsError, match=told):
        look(account)


def test_many_tasks_are_described_in_portions() -> None:
    account = Account()
    for number in range(250):
        account.add(f"t{number:03}", **card(f"10.0.0.{number}"))
    assert len(look(account).found) == 250
    assert [len(given["tasks"]) for name, given in account.asked if name == "describe_tasks"] == [100, 100, 50]


def test_what_ecs_says_of_health_is_shown_only() -> None:
    account = Account()
    account.add("a", healthStatus="UNHEALTHY", **card("10.0.0.1"))
    account.add("b", healthStatus="UNKNOWN", **card("10.0.0.2"))
    picture = look(account)
    assert (servers(picture), picture.says) == (
        ["10.0.0.1:5001", "10.0.0.2:5001"],
        {"10.0.0.1:5001": "UNHEALTHY"},
    )
