"""Models of `discovery.aws`: servers that AWS knows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from lbproxy.config.notation import FLAG, SECONDS, TEXT, TEXT_SCHEMA, Notation, Section, integer, setting
from lbproxy.config.units import parse_text, shown

PORT: Final = integer(1, 65535)
_TARGET_GROUP_RE: Final = re.compile(
    r"arn:aws[a-z0-9-]*:elasticloadbalancing:([a-z0-9-]+):[0-9]{12}:targetgroup/[A-Za-z0-9-]{1,32}/[0-9a-f]+"
)


def parse_target_group(value: object) -> str:
    """The ARN of a target group."""
    text = parse_text(value)
    if not _TARGET_GROUP_RE.fullmatch(text):
        raise ValueError(
            f"expected an ARN such as arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/NAME/ID, "
            f"got {shown(value)}; `aws elbv2 describe-target-groups` lists them"
        )
    return text


def region_of(target_group: str) -> str:
    """The region that the ARN of a target group names."""
    found = _TARGET_GROUP_RE.fullmatch(target_group)
    return "" if found is None else found.group(1)


def parse_region(value: object) -> str:
    """A region, not one of its zones."""
    text = parse_text(value)
    if re.fullmatch(r"[a-z]{2}(-[a-z]+)+-[0-9]+[a-z]", text):
        raise ValueError(f"{text} is a zone; did you mean {text[:-1]}?")
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", text):
        raise ValueError(f"expected a region such as eu-central-1, got {shown(value)}")
    return text


def parse_zone(value: object) -> str:
    """`auto`, or an availability zone, by its name."""
    text = parse_text(value)
    if text != "auto" and not re.fullmatch(r"[a-z]{2}(-[a-z0-9]+)+-[0-9]+[a-z]", text):
        raise ValueError(f"expected auto or a zone such as eu-central-1a, got {shown(value)}")
    return text


def parse_aws_name(value: object) -> str:
    """A name of AWS: what it allows in names of groups, clusters and services, and in ARNs."""
    text = parse_text(value)
    if not 1 <= len(text) <= 512 or not text.isprintable():
        raise ValueError(f"expected a name of 1 to 512 printable characters, got {shown(value)}")
    return text


def parse_hook(value: object) -> bool | str:
    """`true`, `false`, or the name of a lifecycle hook."""
    if isinstance(value, bool):
        return value
    text = parse_text(value)
    if not re.fullmatch(r"[A-Za-z0-9_/-]{1,255}", text):
        raise ValueError(f"expected true, false or the name of a lifecycle hook, got {shown(value)}")
    return text


TARGET_GROUP: Final = Notation("ARN of a target group", parse_target_group, {"type": "string", "pattern": "^arn:aws"})
REGION: Final = Notation("region", parse_region, {"type": "string", "pattern": "^[a-z0-9-]{1,63}$"})
AWS_NAME: Final = Notation("name", parse_aws_name, TEXT_SCHEMA)
ZONE: Final = Notation("`auto` or a zone", parse_zone, {"type": "string", "pattern": "^(auto|[a-z0-9-]+)$"})
HOOK: Final = Notation(
    "`true`, `false` or the name of a hook", parse_hook, {"anyOf": [{"type": "boolean"}, dict(TEXT_SCHEMA)]}
)


class AwsEc2(Section):
    tags: Mapping[Annotated[str, TEXT], Annotated[str, TEXT]] = setting(
        ..., "Tags that an instance must have, all of them. In values `*` is any text and `?` any character."
    )
    port: Annotated[int | None, PORT.or_unset()] = setting(None, "Port of the servers, in place of `aws.port`.")


class AwsEcs(Section):
    cluster: Annotated[str, AWS_NAME] = setting("default", "Name or ARN of the cluster.")
    service: Annotated[str, AWS_NAME] = setting(..., "Name or ARN of the service, whose running tasks are the servers.")


class Aws(Section):
    ec2: AwsEc2 | None = setting(None, "The running instances with these tags.")
    auto_scaling_group: Annotated[str | None, AWS_NAME.or_unset()] = setting(
        None, "Name of an Auto Scaling group: its instances that are `InService`. Who is `Terminating:Wait` drains."
    )
    target_group: Annotated[str | None, TARGET_GROUP.or_unset()] = setting(
        None,
        "ARN of a target group of instances or addresses: its targets, with their ports. What AWS says of their health "
        "is shown, and not gone by; who is deregistered (`draining`) drains.",
    )
    ecs: AwsEcs | None = setting(None, "The running tasks of a service of ECS.")
    port: Annotated[int | None, PORT.or_unset()] = setting(
        None,
        "Port of the servers. Required with `auto_scaling_group`, and with `ec2` unless that has one. Not set, targets "
        "have the port with which they are registered, and tasks the only one that their task definition has. "
        "Of tasks it is the port of the container; the host's is found by it.",
    )
    region: Annotated[str | None, REGION.or_unset()] = setting(
        None,
        "Region, such as `eu-central-1`. Not set: that of the target group, of AWS_DEFAULT_REGION or the profile, or "
        "the one that this instance runs in.",
    )
    address: Literal["private", "public", "ipv6"] = setting(
        "private", "Which address of an instance or a task is used. Targets that are addresses are taken as they are."
    )
    interval: Annotated[float, SECONDS] = setting(
        "15s", "How often AWS is asked, up to a tenth sooner, at random; also soon after a failed connect."
    )
    prefer_zone: Annotated[bool, FLAG] = setting(
        False,
        "Use servers of the own zone only, as long as at least half of those are usable and one has room; else those "
        "of all zones.",
    )
    zone: Annotated[str, ZONE] = setting(
        "auto",
        "The own zone, such as `eu-central-1a`. `auto`: the one that this instance, or task of ECS, runs in.",
    )
    complete_lifecycle: Annotated[bool | str, HOOK] = setting(
        False,
        "Whether the lifecycle action of an instance that is `Terminating:Wait` is completed when its last request is "
        "done here. The name of a hook, where the group has several for terminating instances. Only where this is the "
        "only lbproxy with the group.",
    )
