from __future__ import annotations

from functools import partial

import pytest

from lbproxy.config import aws_checks
from lbproxy.config.loader import load_text
from lbproxy.config.model import Config
from lbproxy.config.problems import ConfigError

TARGET_GROUP = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/predict/0123456789abcdef"
TEXT = "listeners: [{{bind: ':1', pool: p}}]\npools:\n  p:\n    discovery: {}\n"


def problems(discovery: str) -> list[str]:
    try:
        return [str(item).partition("f:")[2] for item in load_text(TEXT.format(discovery), "f", {}).warnings]
    except ConfigError as error:
        return [str(item).partition("f:")[2] for item in error.problems]


@pytest.mark.parametrize(
    "aws",
    [
        "{ec2: {tags: {app: predict}, port: 80}}",
        "{ec2: {tags: {app: predict}}, port: 80, region: eu-central-1, address: ipv6}",
        "{auto_scaling_group: predict, port: 80, complete_lifecycle: drain-hook, interval: 5s}",
        f"{{target_group: '{TARGET_GROUP}', region: eu-central-1}}",
        "{ecs: {service: predict}}",
        "{ecs: {service: predict}, prefer_zone: true, zone: us-east-1-bos-1a}",
    ],
)
def test_what_is_right(aws: str) -> None:
    assert problems(f"{{aws: {aws}}}") == []


@pytest.mark.parametrize(
    ("discovery", "told"),
    [
        ("{}", "4:16: pools.p.discovery: names no platform; write one of: aws, kubernetes"),
        (
            "{aws: {port: 80}}",
            "4:17: pools.p.discovery.aws: does not say which servers; write one of ec2, auto_scaling_group, "
            "target_group, ecs",
        ),
        (
            "{aws: {auto_scaling_group: a, ecs: {service: s}}}",
            "4:17: pools.p.discovery.aws: has auto_scaling_group and ecs; write one of ec2, auto_scaling_group, "
            "target_group, ecs",
        ),
        (
            "{aws: {auto_scaling_group: a}}",
            "4:17: pools.p.discovery.aws: needs the `port` of the servers: `auto_scaling_group` does not tell it",
        ),
        (
            "{aws: {ec2: {tags: {a: b}}}}",
            "4:17: pools.p.discovery.aws: needs the `port` of the servers: `ec2` does not tell it",
        ),
        (
            "{aws: {ec2: {tags: {}, port: 1}}}",
            "4:35: pools.p.discovery.aws.ec2.tags: needs at least one tag, or every instance would be a server",
        ),
        (
            "{aws: {ec2: {tags: {a: b}, port: 1}, port: 2}}",
            "4:53: pools.p.discovery.aws.port: stands under `ec2` too; remove one of them",
        ),
        (
            f"{{aws: {{target_group: '{TARGET_GROUP}', region: us-east-1}}}}",
            "4:140: pools.p.discovery.aws.region: is not that of the target group, eu-central-1",
        ),
        (
            "{aws: {ecs: {service: s}, complete_lifecycle: true}}",
            "4:42: pools.p.discovery.aws.complete_lifecycle: belongs to `auto_scaling_group`",
        ),
        (
            "{aws: {ecs: {service: s}, zone: eu-central-1a}}",
            "4:42: pools.p.discovery.aws.zone: has no effect without `prefer_zone: true`",
        ),
        (
            "{aws: {ecs: {service: s}, interval: 1s}}",
            "4:52: pools.p.discovery.aws.interval: asks AWS more than once in 5s, and AWS bounds the calls of "
            "an account",
        ),
    ],
)
def test_what_is_wrong(discovery: str, told: str) -> None:
    assert problems(discovery) == [told]


def test_without_the_library_the_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    without = partial(aws_checks.check_aws, has=lambda name: name != "boto3")
    monkeypatch.setattr("lbproxy.config.checks.check_aws", without)
    assert problems("{aws: {ecs: {service: s}}}") == [
        "4:17: pools.p.discovery.aws: needs boto3, which is not installed; pip install 'lbproxy[aws]'"
    ]


def test_what_is_installed() -> None:
    assert aws_checks.has_library("yaml") and not aws_checks.has_library("no_such_library")


def test_a_pool_needs_no_servers_of_its_own() -> None:
    config: Config = load_text(TEXT.format("{aws: {ecs: {service: s}}}"), "f", {}).config
    assert config.pools["p"].servers == ()
