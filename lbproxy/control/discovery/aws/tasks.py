"""The running tasks of a service of ECS, at the address of their own (awsvpc) or at a port of their host.

A task that is to stop (`desiredStatus`) drains, though it still runs. Without a port in the config the task definition
must have one only; a definition never changes, so it is asked for once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from lbproxy.control.discovery.aws.ask import Asking, AwsError, Item, needed
from lbproxy.control.discovery.aws.instances import Instance, named, portions
from lbproxy.control.discovery.aws.picture import Picture

AT_ONCE: Final = 100  # tasks, or container instances, of one question
RUNNING: Final = "RUNNING"
CARD: Final = "ElasticNetworkInterface"


class Tasks:
    """port: of the container, 0 for the only one of the task definition. kind: private, public or ipv6."""

    def __init__(self, cluster: str, service: str, port: int, kind: str) -> None:
        self._cluster = cluster
        self._service = service
        self._port = port
        self._kind = kind
        self._ports: dict[str, int] = {}  # by task definition

    def look(self, ask: Asking) -> Picture:
        """Raises AwsError."""
        tasks = self._running(ask)
        self._learn_ports(ask, {str(task["taskDefinitionArn"]) for task in tasks})
        hosts = self._hosts(ask, [task for task in tasks if _card(task) is None])
        addresses = self._public_addresses(ask, tasks) if self._kind == "public" else {}
        picture = Picture()
        for task in tasks:
            self._add(picture, task, hosts, addresses)
        return picture

    def _running(self, ask: Asking) -> list[Item]:
        given = {"cluster": self._cluster, "serviceName": self._service, "desiredStatus": RUNNING}
        arns = sorted(ask.pages("ecs", "list_tasks", "taskArns", **given))
        found: list[Item] = []
        for some in portions(arns, AT_ONCE):
            found += needed(
                ask.call("ecs", "describe_tasks", cluster=self._cluster, tasks=some), "tasks", "describe_tasks"
            )
        return [task for task in found if task.get("lastStatus") == RUNNING and task.get("desiredStatus") == RUNNING]

    def _learn_ports(self, ask: Asking, definitions: set[str]) -> None:
        if self._port:
            return
        self._ports = {arn: port for arn, port in self._ports.items() if arn in definitions}
        for arn in sorted(definitions - self._ports.keys()):
            answer = ask.call("ecs", "describe_task_definition", taskDefinition=arn)
            containers = answer.get("taskDefinition", {}).get("containerDefinitions", ())
            ports = {
                int(mapping["containerPort"])
                for container in containers
                for mapping in container.get("portMappings", ())
                if mapping.get("containerPort") and mapping.get("protocol", "tcp") == "tcp"
            }
            if len(ports) != 1:
                listed = ", ".join(map(str, sorted(ports))) or "none"
                raise AwsError(f"which port? {arn.rpartition('/')[2]} has {listed}; set `port`")
            self._ports[arn] = ports.pop()

    def _hosts(self, ask: Asking, tasks: Sequence[Item]) -> Mapping[str, Instance]:
        """The instances that tasks without an address of their own run on, by container instance."""
        arns = sorted({str(task["containerInstanceArn"]) for task in tasks if task.get("containerInstanceArn")})
        ids: dict[str, str] = {}
        for some in portions(arns, AT_ONCE):
            operation = "describe_container_instances"
            answer = ask.call("ecs", operation, cluster=self._cluster, containerInstances=some)
            for item in needed(answer, "containerInstances", operation):
                ids[str(item["containerInstanceArn"])] = str(item.get("ec2InstanceId", ""))
        instances = named(ask, ids.values(), self._kind) if ids else {}
        return {arn: instances[name] for arn, name in ids.items() if name in instances}

    def _public_addresses(self, ask: Asking, tasks: Sequence[Item]) -> Mapping[str, str]:
        """Of network interfaces, by their id."""
        cards = sorted(card["networkInterfaceId"] for task in tasks if (card := _card(task)) is not None)
        found: dict[str, str] = {}
        for some in portions(cards, AT_ONCE):
            filters = [{"Name": "network-interface-id", "Values": some}]
            operation = "describe_network_interfaces"
            for item in ask.pages("ec2", operation, "NetworkInterfaces", Filters=filters):
                found[str(item["NetworkInterfaceId"])] = str(item.get("Association", {}).get("PublicIp", ""))
        return found

    def _add(self, picture: Picture, task: Item, hosts: Mapping[str, Instance], addresses: Mapping[str, str]) -> None:
        name = str(task["taskArn"]).rpartition("/")[2]
        port = self._port or self._ports[str(task["taskDefinitionArn"])]
        zone = str(task.get("availabilityZone", ""))
        verdict = "UNHEALTHY" if task.get("healthStatus") == "UNHEALTHY" else ""
        card = _card(task)
        if card is not None:
            if self._kind == "public":
                ip = addresses.get(card["networkInterfaceId"], "")
            else:
                ip = card["privateIPv4Address"] if self._kind == "private" else _ipv6(task)
        else:
            host = hosts.get(str(task.get("containerInstanceArn", "")))
            ip = "" if host is None or not host.is_running else host.address
            container_port, port = port, _host_port(task, port)
            if not port:
                picture.lacking.append(f"task {name} has port {container_port} of no container on its host")
                return
        if not ip:
            picture.lacking.append(f"task {name} has no {self._kind} address")
            return
        picture.add(name, ip, port, zone, verdict)


def _card(task: Item) -> dict[str, str] | None:
    """What is known of the network interface of a task's own, None if it has none."""
    for item in task.get("attachments", ()):
        if item.get("type") == CARD:
            details = {str(entry.get("name")): str(entry.get("value", "")) for entry in item.get("details", ())}
            return {"networkInterfaceId": "", "privateIPv4Address": "", **details}
    return None


def _ipv6(task: Item) -> str:
    cards = (card for container in task.get("containers", ()) for card in container.get("networkInterfaces", ()))
    return next((str(card["ipv6Address"]) for card in cards if card.get("ipv6Address")), "")


def _host_port(task: Item, port: int) -> int:
    """The port of the host that a port of a container is bound to, 0 if there is none."""
    for container in task.get("containers", ()):
        for binding in container.get("networkBindings", ()):
            if binding.get("containerPort") == port and binding.get("protocol", "tcp") == "tcp":
                return int(binding.get("hostPort", 0))
    return 0
