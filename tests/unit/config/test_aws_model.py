from __future__ import annotations

import pytest
from pydantic import ValidationError

from lbproxy.config.aws_model import Aws, AwsEcs, region_of

TARGET_GROUP = "arn:aws-cn:elasticloadbalancing:cn-north-1:123456789012:targetgroup/predict/0123456789abcdef"


def test_defaults() -> None:
    made = Aws.model_validate({"ecs": {"service": "predict"}})
    assert (made.address, made.interval, made.complete_lifecycle, made.region, made.port) == (
        "private",
        15.0,
        False,
        None,
        None,
    )
    assert made.ecs == AwsEcs(cluster="default", service="predict")


def test_a_target_group_says_its_region() -> None:
    assert Aws.model_validate({"target_group": TARGET_GROUP}).target_group == TARGET_GROUP
    assert region_of(TARGET_GROUP) == "cn-north-1" and region_of("predict") == ""


@pytest.mark.parametrize(("hook", "value"), [(True, True), (False, False), ("drain", "drain")])
def test_hooks(hook: object, value: object) -> None:
    assert Aws.model_validate({"complete_lifecycle": hook}).complete_lifecycle == value


@pytest.mark.parametrize(
    ("aws", "told"),
    [
        ({"target_group": "predict"}, "expected an ARN such as arn:aws:elasticloadbalancing"),
        ({"target_group": TARGET_GROUP.replace("targetgroup", "loadbalancer")}, "expected an ARN such as"),
        ({"region": "eu-central-1a"}, "eu-central-1a is a zone; did you mean eu-central-1?"),
        ({"region": "Frankfurt am Main"}, "expected a region such as eu-central-1"),
        ({"auto_scaling_group": ""}, "expected a name of 1 to 512 printable characters"),
        ({"complete_lifecycle": "a b"}, "expected true, false or the name of a lifecycle hook"),
        ({"zone": "a"}, "expected auto or a zone such as eu-central-1a"),
        ({"port": 0}, "expected a whole number from 1 to 65535"),
        ({"address": "elastic"}, "'private', 'public' or 'ipv6'"),
        ({"ec2": {"port": 1}}, "Field required"),
    ],
)
def test_what_is_refused(aws: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Aws.model_validate(aws)
    assert told in str(raised.value)
