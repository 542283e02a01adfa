"""Who the servers are, by each of the ways that AWS knows them: tags, an Auto Scaling group, a target group.

Those of ECS are in tasks.py. A look that fails in any part of it fails: half an answer would take servers away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from lbproxy.config.aws_model import Aws
from lbproxy.control.discovery.aws.ask import Asking, AwsError, Item, needed
from lbproxy.control.discovery.aws.instances import Instance, named, tagged
from lbproxy.control.discovery.aws.picture import Picture
from lbproxy.control.discovery.aws.tasks import Tasks

IN_SERVICE: Final = "InService"
WAITING: Final = "Terminating:Wait"
DRAINING: Final = "draining"
WELL: Final = ("healthy", "unused", "unavailable", "initial")

Look = Callable[[Asking], Picture]


def question(aws: Aws) -> tuple[str, str, Look]:
    """What the config asks: a name for metrics, a title for messages, and how to look."""
    port = aws.port or 0
    if aws.ec2 is not None:
        tags = ",".join(f"{name}={value}" for name, value in aws.ec2.tags.items())
        return f"aws:ec2:{tags}", f"AWS (EC2 {tags})", Ec2(aws.ec2.tags, aws.ec2.port or port, aws.address).look
    if aws.auto_scaling_group is not None:
        name = aws.auto_scaling_group
        return f"aws:asg:{name}", f"AWS (Auto Scaling group {name})", Group(name, port, aws.address).look
    if aws.target_group is not None:
        name = aws.target_group.split("/")[-2]
        return (
            f"aws:target_group:{name}",
            f"AWS (target group {name})",
            Targets(aws.target_group, port, aws.address).look,
        )
    if aws.ecs is not None:
        name = "/".join(text.rpartition("/")[2] for text in (aws.ecs.cluster, aws.ecs.service))
        return f"aws:ecs:{name}", f"AWS (ECS {name})", Tasks(aws.ecs.cluster, aws.ecs.service, port, aws.address).look
    raise ValueError("the config names no servers")  # it was refused: config/aws_checks.py


class Ec2:
    """The running instances with some tags. kind: of the address."""

    def __init__(self, tags: Mapping[str, str], port: int, kind: str) -> None:
        self._tags = tags
        self._port = port
        self._kind = kind

    def look(self, ask: Asking) -> Picture:
        """Raises AwsError."""
        picture = Picture()
        for item in tagged(ask, self._tags, self._kind):
            if item.address:
                picture.add(item.name, item.address, self._port, item.zone)
            else:
                picture.lacking.append(f"{item.name} has no {self._kind} address")
        return picture


class Known:
    """Instances by id. What EC2 does not know, for a moment, that another service has, keeps its last address."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._known: dict[str, Instance] = {}

    def look(self, ask: Asking, names: Iterable[str], picture: Picture) -> Mapping[str, Instance]:
        """Those that run and have an address. names: their ids; others are forgotten. Raises AwsError."""
        wanted = sorted(set(names))
        seen = named(ask, wanted, self._kind) if wanted else {}
        found: dict[str, Instance] = {}
        for name in wanted:
            item = seen.get(name)
            if item is None:
                before = self._known.get(name)
                if before is not None:
                    found[name] = before
                picture.lacking.append(f"EC2 does not know {name}{'' if before is None else ', which stays'}")
            elif item.is_running and item.address:
                found[name] = item
            elif item.is_running:
                picture.lacking.append(f"{name} has no {self._kind} address")
        self._known = found
        return found


class Group:
    """The instances in service of an Auto Scaling group. What AWS says of their health is shown."""

    def __init__(self, name: str, port: int, kind: str) -> None:
        self._name = name
        self._port = port
        self._known = Known(kind)

    def look(self, ask: Asking) -> Picture:
        """Raises AwsError."""
        operation, key = "describe_auto_scaling_groups", "AutoScalingGroups"
        groups = ask.pages("autoscaling", operation, key, AutoScalingGroupNames=[self._name])
        if not groups:
            raise AwsError("there is no such group in this region")
        members: list[Item] = sorted(groups[0].get("Instances", ()), key=lambda item: str(item["InstanceId"]))
        wanted = [str(item["InstanceId"]) for item in members if item.get("LifecycleState") in (IN_SERVICE, WAITING)]
        picture = Picture()
        found = self._known.look(ask, wanted, picture)
        waiting: dict[str, str] = {}
        for item in members:
            name, state = str(item["InstanceId"]), item.get("LifecycleState")
            if state == WAITING:
                waiting[name] = found[name].address if name in found else ""
            elif state == IN_SERVICE and name in found:
                verdict = "" if item.get("HealthStatus", "Healthy") == "Healthy" else "Unhealthy"
                picture.add(name, found[name].address, self._port, found[name].zone, verdict)
        picture.waiting = waiting
        return picture


class Targets:
    """The targets of a target group, with their ports: instances, or addresses."""

    def __init__(self, arn: str, port: int, kind: str) -> None:
        self._arn = arn
        self._port = port
        self._type = ""
        self._known = Known(kind)

    def look(self, ask: Asking) -> Picture:
        """Raises AwsError."""
        if not self._type:
            operation = "describe_target_groups"
            groups = ask.pages("elbv2", operation, "TargetGroups", TargetGroupArns=[self._arn])
            if not groups:
                raise AwsError("there is no such target group")
            self._type = str(groups[0].get("TargetType", "instance"))
        if self._type not in ("instance", "ip"):
            raise AwsError(f"its targets are of the type {self._type}, which has no servers; instance and ip have")
        operation = "describe_target_health"
        entries = needed(ask.call("elbv2", operation, TargetGroupArn=self._arn), "TargetHealthDescriptions", operation)
        picture, members = Picture(), list[tuple[str, int, str, str]]()
        for entry in entries:
            target, health = entry["Target"], entry.get("TargetHealth", {})
            state = str(health.get("State", ""))
            if state == DRAINING:
                continue  # it was deregistered: that is no verdict, it is no member any more
            reason = f" ({health['Reason']})" if health.get("Reason") else ""
            verdict = "" if state in WELL else f"{state}{reason}"
            port = self._port or int(target.get("Port", 0))
            members.append((str(target["Id"]), port, str(target.get("AvailabilityZone", "")), verdict))
        members.sort()
        if self._type == "ip":
            for name, port, zone, verdict in members:
                picture.add(name, name, port, "" if zone == "all" else zone, verdict)
            return picture
        found = self._known.look(ask, (name for name, _, _, _ in members), picture)
        for name, port, _, verdict in members:
            if name in found:
                picture.add(name, found[name].address, port, found[name].zone, verdict)
        return picture
