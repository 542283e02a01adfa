"""The CloudFormation templates in deploy/aws: what they name is there, and what they write to machines is right."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lbproxy.cli import program
from lbproxy.config import loader
from tests.architecture.rules import ROOT
from tests.support.pages import blocks
from tests.support.stop_time import stops_within_s

Tree = dict[str, Any]
STACKS = sorted((ROOT / "deploy/aws").glob("*.yaml"))
assert STACKS
BEHIND_NLB, ONLY_BALANCER = (ROOT / "deploy/aws" / name for name in ("behind-nlb.yaml", "only-balancer.yaml"))
PSEUDO = {
    "AWS::Region": "eu-central-1",
    "AWS::AccountId": "123456789012",
    "AWS::StackName": "predict",
    "AWS::Partition": "aws",
}
by_name = pytest.mark.parametrize("path", STACKS, ids=lambda path: path.name)


class Loader(yaml.SafeLoader):
    """Short forms of functions become mappings: `!Ref x` is {"Ref": "x"}, others {"Fn::Name": ...}."""


def _function(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Tree:
    value: object
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        raise AssertionError(f"!{suffix} of a mapping")
    return {suffix if suffix == "Ref" else f"Fn::{suffix}": value}


Loader.add_multi_constructor("!", _function)


def stack(path: Path) -> Tree:
    value: Tree = yaml.load(path.read_text(), Loader)
    return value


def named(tree: object) -> Iterator[str]:
    """What `!Ref`, `!GetAtt` and `!Sub` name."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key == "Ref":
                yield value
            elif key == "Fn::GetAtt":
                yield value.partition(".")[0]
            elif key == "Fn::Sub":
                yield from (name.partition(".")[0] for name in re.findall(r"\$\{([\w:.]+)\}", value))
            else:
                yield from named(value)
    elif isinstance(tree, list):
        for item in tree:
            yield from named(item)


def properties(path: Path, kind: str) -> list[Tree]:
    """Of all resources of a type."""
    return [item["Properties"] for item in stack(path)["Resources"].values() if item["Type"] == kind]


def user_data(path: Path) -> Tree:
    """The cloud-config of the machine of lbproxy, with the parameters' defaults, or a value of their type."""
    parameters = stack(path)["Parameters"]
    values = {
        name: str(item.get("Default", "10.0.0.0/16" if "Cidr" in name else "predict"))
        for name, item in parameters.items()
    }
    values |= PSEUDO | {"Address.AllocationId": "eipalloc-1"}
    templates = [item["LaunchTemplateData"] for item in properties(path, "AWS::EC2::LaunchTemplate")]
    [data] = [item["UserData"]["Fn::Base64"]["Fn::Sub"] for item in templates if "UserData" in item]
    text = re.sub(r"\$\{([\w:.]+)\}", lambda found: values[found[1]], data)
    assert text.startswith("#cloud-config\n")
    value: Tree = yaml.safe_load(text)
    return value


def written(path: Path) -> dict[str, str]:
    return {item["path"]: item["content"] for item in user_data(path)["write_files"]}


def config(path: Path) -> loader.Loaded:
    return loader.load_text(written(path)["/etc/lbproxy/lbproxy.yaml"], path.name, {})


def service(path: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(written(path)["/etc/systemd/system/lbproxy.service"])
    return parser["Service"]


@by_name
def test_what_is_named_is_there(path: Path) -> None:
    tree = stack(path)
    assert set(named(tree)) - tree["Parameters"].keys() - tree["Resources"].keys() - PSEUDO.keys() == set()
    assert set(tree["Parameters"]) - set(named(tree)) == set(), "nobody asks for it"
    kinds = [item["Type"] for item in tree["Resources"].values()]
    assert [kind for kind in kinds if not re.fullmatch(r"AWS::\w+::\w+", kind)] == []


@by_name
def test_the_config_is_accepted_without_warnings(path: Path) -> None:
    loaded = config(path)
    assert loaded.warnings == ()
    found = loaded.config.pools["predict"].discovery
    assert found is not None and found.aws is not None and found.aws.auto_scaling_group
    assert (found.aws.port, found.aws.region) == (5001, "eu-central-1")


@by_name
def test_the_command_is_one_that_the_program_has(path: Path) -> None:
    parser = program.build_parser()
    line = service(path)["ExecStart"].split()[1:]
    assert parser.parse_args(program.with_command(line)).command == "run"
    assert line[-1] == "/etc/lbproxy/lbproxy.yaml"
    assert any("pip install 'lbproxy[aws]'" in str(command) for command in user_data(path)["runcmd"])


@by_name
def test_machines_may_do_what_lbproxy_asks_for_and_no_more(path: Path) -> None:
    [role] = properties(path, "AWS::IAM::Role")
    allowed = {
        action
        for policy in role["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }
    found = config(path).config.pools["predict"].discovery
    assert found is not None and found.aws is not None
    needed = {"ec2:DescribeInstances", "autoscaling:DescribeAutoScalingGroups"}
    if found.aws.complete_lifecycle:
        needed.add("autoscaling:CompleteLifecycleAction")
    if "associate-address" in str(user_data(path)["runcmd"]):
        needed.add("ec2:AssociateAddress")
    assert allowed == needed


def test_behind_an_nlb_lbproxy_stops_in_order() -> None:
    [group] = properties(BEHIND_NLB, "AWS::ElasticLoadBalancingV2::TargetGroup")
    attributes = {item["Key"]: item["Value"] for item in group["TargetGroupAttributes"]}
    loaded = config(BEHIND_NLB).config
    noticed_s = group["HealthCheckIntervalSeconds"] * group["UnhealthyThresholdCount"]
    assert noticed_s < loaded.shutdown.delay < loaded.shutdown.grace
    assert loaded.shutdown.grace < int(attributes["deregistration_delay.timeout_seconds"])
    assert stops_within_s(loaded.shutdown.grace) < int(service(BEHIND_NLB)["TimeoutStopSec"])


def test_behind_an_nlb_both_sides_speak_the_same() -> None:
    [group] = properties(BEHIND_NLB, "AWS::ElasticLoadBalancingV2::TargetGroup")
    attributes = {item["Key"]: item["Value"] for item in group["TargetGroupAttributes"]}
    loaded = config(BEHIND_NLB).config
    listener = loaded.listeners[0]
    assert (attributes["proxy_protocol_v2.enabled"], listener.proxy_protocol) == ("true", "accept")
    assert group["Port"] == listener.bind[0].port
    assert loaded.admin.bind is not None
    assert (int(group["HealthCheckPort"]), group["HealthCheckPath"]) == (loaded.admin.bind.port, "/readyz")
    assert [str(network) for network in loaded.trusted_proxies] == ["10.0.0.0/16"]
    found = loaded.pools["predict"].discovery
    assert found is not None and found.aws is not None
    assert found.aws.complete_lifecycle is False, "there are several lbproxy"


def test_the_only_balancer_completes_the_hook_of_its_servers() -> None:
    [servers] = [
        item
        for item in properties(ONLY_BALANCER, "AWS::AutoScaling::AutoScalingGroup")
        if "AutoScalingGroupName" in item
    ]
    [hook] = servers["LifecycleHookSpecificationList"]
    found = config(ONLY_BALANCER).config.pools["predict"].discovery
    assert found is not None and found.aws is not None
    assert hook["LifecycleHookName"] == found.aws.complete_lifecycle
    assert hook["LifecycleTransition"] == "autoscaling:EC2_INSTANCE_TERMINATING"
    assert (
        servers["AutoScalingGroupName"]["Fn::Sub"].replace("${AWS::StackName}", "predict")
        == found.aws.auto_scaling_group
    )


@by_name
def test_the_linter_of_aws_has_no_complaint(path: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("cfn-lint"), path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_what_the_docs_install_is_what_the_package_asks_for() -> None:
    page = blocks((ROOT / "docs/aws.md").read_text())
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [installed] = [shlex.split(block.text) for block in page if block.info == "sh"]
    assert installed == ["pip", "install", "lbproxy[aws]"] and extras["aws"]
    [image] = [block.text.splitlines() for block in page if block.info == "dockerfile"]
    own = (ROOT / "Dockerfile").read_text()
    assert image[0] == "FROM lbproxy" and "AS lbproxy\n" in own
    assert shlex.split(image[2]) == ["RUN", "/opt/lbproxy/bin/pip", "install", *extras["aws"]]
    assert own.count(f"\n{image[-1]}\n") == 2 and image[-1].startswith("USER ")


def test_the_policy_in_the_docs_is_what_lbproxy_asks_for() -> None:
    [policy] = [block.text for block in blocks((ROOT / "docs/aws.md").read_text()) if block.info == "json"]
    allowed = set()
    for statement in json.loads(policy)["Statement"]:
        actions = statement["Action"]
        allowed |= {actions} if isinstance(actions, str) else set(actions)
    sources = "".join(path.read_text() for path in (ROOT / "lbproxy/control/discovery/aws").glob("*.py"))
    operations = set(re.findall(r'"((?:describe|list|complete)_[a-z_]+)"', sources))
    asked = {"".join(word.capitalize() for word in operation.split("_")) for operation in operations}
    assert {action.partition(":")[2] for action in allowed} == asked
    assert len(asked) == 11
