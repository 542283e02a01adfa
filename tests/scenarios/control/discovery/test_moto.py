"""A real daemon follows what moto, a stand-in for AWS that others keep, says of instances, groups and targets.

Its instances have addresses at which nobody listens, so this is about who is a server; test_aws.py sends requests, and
has ECS: moto starts no tasks of services.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import LbProxy
from tests.support.ports import consecutive_ports
from tests.support.waiting import wait_until

REGION = "eu-central-1"
IMAGE = "ami-12c6146b"  # one that moto has
TAGS = [{"ResourceType": "instance", "Tags": [{"Key": "app", "Value": "predict"}]}]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Where moto listens."""
    port = consecutive_ports(1)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: is_there(port), "moto to listen")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def client(endpoint: str, service: str) -> Any:
    from boto3.session import Session
    from botocore.config import Config

    session = Session("test", "test", region_name=REGION)
    return session.client(service, endpoint_url=endpoint, config=Config(read_timeout=120))


def environ(endpoint: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


class Servers:
    """Of each pool, as ids of instances."""

    def __init__(self, lb: LbProxy) -> None:
        self._lb = lb

    def wait(self, pool: str, names: set[str]) -> None:
        def found() -> set[str]:
            return {str(server["name"]).partition(":")[0] for server in self._lb.server_status(pool)}

        wait_until(lambda: found() == names, f"the servers of {pool} to be {sorted(names)}")


@pytest.mark.slow
def test_instances_groups_and_targets_are_followed(endpoint: str, tmp_path: Path) -> None:
    with (
        closing(client(endpoint, "ec2")) as ec2,
        closing(client(endpoint, "autoscaling")) as scaling,
        closing(client(endpoint, "elbv2")) as elb,
    ):
        started = ec2.run_instances(ImageId=IMAGE, MinCount=3, MaxCount=3, TagSpecifications=TAGS)["Instances"]
        first, second, third = (item["InstanceId"] for item in started)
        scaling.create_launch_configuration(LaunchConfigurationName="lc", ImageId=IMAGE, InstanceType="t2.micro")
        size = {"MinSize": 0, "MaxSize": 5, "DesiredCapacity": 2}
        scaling.create_auto_scaling_group(
            AutoScalingGroupName="g", LaunchConfigurationName="lc", AvailabilityZones=[f"{REGION}a"], **size
        )
        vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        group = elb.create_target_group(Name="t", Protocol="HTTP", Port=5001, VpcId=vpc)["TargetGroups"][0]
        arn = group["TargetGroupArn"]
        elb.register_targets(TargetGroupArn=arn, Targets=[{"Id": name, "Port": 5005} for name in (first, second)])
        pools = {
            "tagged": {"ec2": {"tags": {"app": "predict"}}, "port": 5001},
            "scaled": {"auto_scaling_group": "g", "port": 5001},
            "registered": {"target_group": arn},
        }
        config = {
            "listeners": [{"name": name, "bind": "127.0.0.1:0", "pool": name} for name in pools],
            "pools": {
                name: {"discovery": {"aws": {"interval": "1s", "region": REGION, **aws}}, "health_check": "off"}
                for name, aws in pools.items()
            },
        }
        lb = LbProxy(config, tmp_path / "lb")
        lb.start(environ(endpoint))
        try:
            servers = Servers(lb)
            servers.wait("tagged", {first, second, third})
            servers.wait("scaled", in_service(scaling))
            servers.wait("registered", {first, second})
            addresses = {str(server["address"]) for server in lb.server_status("registered")}
            assert addresses == {f"{item['PrivateIpAddress']}:5005" for item in started[:2]}
            ec2.stop_instances(InstanceIds=[second])
            ec2.terminate_instances(InstanceIds=[third])
            scaling.set_desired_capacity(AutoScalingGroupName="g", DesiredCapacity=3)
            servers.wait("tagged", {first})
            assert len(in_service(scaling)) == 3
            servers.wait("scaled", in_service(scaling))
            servers.wait("registered", {first})
            ec2.start_instances(InstanceIds=[second])
            scaling.set_desired_capacity(AutoScalingGroupName="g", DesiredCapacity=1)
            elb.deregister_targets(TargetGroupArn=arn, Targets=[{"Id": first, "Port": 5005}])
            servers.wait("tagged", {first, second})
            assert len(in_service(scaling)) == 1
            servers.wait("scaled", in_service(scaling))
            servers.wait("registered", {second})
            assert lb.metric("discovery_last_success_timestamp_seconds", pool="registered") > 1e9
        except BaseException:
            lb.kill()
            raise
        lb.stop()


def is_there(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def in_service(scaling: Any) -> set[str]:
    group = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=["g"])["AutoScalingGroups"][0]
    return {item["InstanceId"] for item in group["Instances"] if item["LifecycleState"] == "InService"}
