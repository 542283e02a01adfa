"""A real daemon that asks an endpoint of AWS, through boto3, and sends what comes to the servers found there."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.aws_endpoint import MOODS, TARGET_GROUP, AwsEndpoint, Instance
from tests.support.client import Client
from tests.support.daemon import Entry, LbProxy
from tests.support.origin import Origin, steps
from tests.support.ports import consecutive_ports
from tests.support.rig import get
from tests.support.waiting import wait_until

Aws = Mapping[str, object]
HOSTS = {"i-1": "127.0.0.21", "i-2": "127.0.0.22", "i-3": "127.0.0.23"}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TAGGED: Aws = {"ec2": {"tags": {"app": "predict"}}}
SCALED: Aws = {"auto_scaling_group": "predict", "complete_lifecycle": True}
REGISTERED: Aws = {"target_group": TARGET_GROUP}
NEAR: Aws = {**TAGGED, "prefer_zone": True, "zone": "eu-central-1a"}
TASKS: Aws = {"ecs": {"cluster": "models", "service": "predict"}}


class Stage:
    """Three instances with a server on each, on the same port, and pools that find them in AWS."""

    def __init__(self, directory: Path, stack: ExitStack, pools: Mapping[str, Aws]) -> None:
        self.aws = stack.enter_context(AwsEndpoint())
        self.port = self.aws.task_port = consecutive_ports(1)
        self.origins = [stack.enter_context(Origin(host=host, port=self.port)) for host in HOSTS.values()]
        for name, address in HOSTS.items():
            self.aws.instances[name] = Instance(address, tags={"app": "predict"})
        config: dict[str, object] = {
            "listeners": [{"name": name, "bind": "127.0.0.1:0", "pool": name} for name in pools],
            "pools": {
                name: {
                    "discovery": {"aws": {"interval": "1s", "port": self.port, **aws}},
                    "health_check": {"interval": "100ms", "rise": 1},
                }
                for name, aws in pools.items()
            },
        }
        self.lb = LbProxy(config, directory)

    def used(self, pool: str) -> str:
        """The instances whose servers may take a request."""
        hosts = {str(server["address"]).partition(":")[0] for server in self.lb.server_status(pool) if server["used"]}
        return " ".join(name for name, host in HOSTS.items() if host in hosts)

    def wait_used(self, pool: str, names: str) -> None:
        wait_until(lambda: self.used(pool) == names, f"the servers of {pool} to be {names}")

    def source(self, pool: str) -> Entry:
        sources = self.lb.pool_status(pool)["discovery"]
        assert isinstance(sources, list)
        found: Entry = sources[0]
        return found

    def wait_error(self, pool: str, told: str) -> None:
        def is_told() -> bool:
            error = self.source(pool)["error"]
            return error is not None and told in str(error)

        wait_until(is_told, f"the status of {pool} to say {told!r}")

    def wait_well(self, pool: str) -> None:
        wait_until(lambda: self.source(pool)["error"] is None, f"no error of {pool}")

    def wait_said(self, text: str) -> None:
        """Once or more often: on a busy machine there are time-outs of its own."""
        wait_until(lambda: text in self.lb.stderr, f"the log to say {text!r}")

    def ask(self, pool: str) -> int:
        with Client(self.lb.port(pool)) as client:
            return client.ask(get("/x")).status


@contextmanager
def running(directory: Path, pools: Mapping[str, Aws], **states: str) -> Iterator[Stage]:
    """states: of the instances in the Auto Scaling group."""
    with ExitStack() as stack:
        stage = Stage(directory / "lb", stack, pools)
        stage.aws.group.update({name.replace("_", "-"): state for name, state in states.items()})
        stage.lb.start(stage.aws.environ)
        try:
            yield stage
            for origin in stage.origins:
                origin.reset()
        except BaseException:
            stage.lb.kill()
            raise
        stage.lb.stop()


def test_servers_come_and_go(tmp_path: Path) -> None:
    pools = {"tagged": TAGGED, "scaled": SCALED, "registered": REGISTERED, "tasks": TASKS, "near": NEAR}
    with running(tmp_path, pools, i_1="InService", i_2="Pending") as stage:
        aws, port = stage.aws, stage.port
        aws.page_size = 1
        aws.instances["i-3"].state = "pending"
        aws.instances["i-3"].zone = "eu-central-1b"
        aws.targets.update({("i-1", port): "unhealthy", ("i-2", port): "draining"})
        aws.tasks["t1"] = HOSTS["i-1"]
        stage.wait_used("tagged", "i-1 i-2")
        stage.wait_used("near", "i-1 i-2")
        for pool in ("scaled", "registered", "tasks"):
            stage.wait_used(pool, "i-1")
            assert stage.ask(pool) == 200
        assert stage.source("registered")["says"] == {f"{HOSTS['i-1']}:{port}": "unhealthy"}
        (server,) = stage.lb.server_status("scaled")
        assert (server["name"], server["source"]) == (f"i-1:{port}/{HOSTS['i-1']}", "aws")
        aws.instances["i-3"].state = "running"
        aws.instances["i-2"].state = "stopping"
        aws.group.update({"i-1": "Standby", "i-3": "InService"})
        aws.targets[("i-3", port)] = "initial"
        del aws.targets["i-1", port]
        aws.tasks = {"t2": HOSTS["i-2"]}
        stage.wait_used("tagged", "i-1 i-3")
        wait_until(lambda: len(stage.lb.server_status("near")) == 2, "i-2 to leave, and i-3 to join")
        stage.wait_used("near", "i-1")
        zones = {str(item["zone"]): item["far"] for item in stage.lb.server_status("near")}
        assert zones == {"eu-central-1a": False, "eu-central-1b": True}
        stage.wait_used("scaled", "i-3")
        stage.wait_used("registered", "i-3")
        stage.wait_used("tasks", "i-2")
        assert [stage.ask(pool) for pool in pools] == [200] * 5
        stage.origins[0].close()
        wait_until(lambda: stage.ask("near") == 200 and stage.used("near") == "i-3", "the other zone to be used")
        for pool, name in (("tagged", "ec2:app=predict"), ("scaled", "asg:predict"), ("tasks", "ecs:models/predict")):
            source = f"aws:{name}"
            assert stage.lb.metric("discovery_last_success_timestamp_seconds", pool=pool, source=source) > 1e9
        assert "boto" not in stage.lb.stderr


@pytest.mark.slow
def test_no_error_takes_a_server_away(tmp_path: Path) -> None:
    pools: dict[str, Aws] = {mood: {"ec2": {"tags": {"app": "predict", "mood": mood}}} for mood in MOODS}
    with running(tmp_path, pools) as stage:
        stage.aws.page_size = 2
        for mood in MOODS:
            stage.wait_used(mood, "i-1 i-2 i-3")
        stage.aws.is_moody = True
        for mood, told in MOODS.items():
            stage.wait_error(mood, told)
        for mood in MOODS:
            assert stage.used(mood) == "i-1 i-2 i-3" and stage.ask(mood) == 200
            assert stage.lb.metric("discovery_errors_total", pool=mood) >= 1
            stage.wait_said(f"pool {mood}: AWS (EC2 app=predict,mood={mood}): ")
        del stage.aws.instances["i-3"]
        stage.aws.is_moody = False
        for mood in MOODS:
            stage.wait_used(mood, "i-1 i-2")
            stage.wait_well(mood)
            stage.wait_said(f"pool {mood}: AWS (EC2 app=predict,mood={mood}) answers again, with")


def test_the_last_request_of_an_instance_is_awaited(tmp_path: Path) -> None:
    with running(tmp_path, {"scaled": SCALED}, i_1="InService", i_2="InService") as stage:
        stage.wait_used("scaled", "i-1 i-2")
        end = threading.Event()
        for origin in stage.origins[:2]:
            origin.script(*[steps(end, OK)] * 4)
        with ExitStack() as stack:
            clients = [stack.enter_context(Client(stage.lb.port("scaled"))) for _ in range(2)]
            for client in clients:
                client.send(get("/slow"))
            wait_until(lambda: all(item["inflight"] == 1 for item in stage.lb.server_status("scaled")), "both at work")
            stage.aws.group["i-2"] = "Terminating:Wait"
            stage.wait_used("scaled", "i-1")
            looks = stage.aws.count("DescribeAutoScalingGroups")
            wait_until(lambda: stage.aws.count("DescribeAutoScalingGroups") >= looks + 2, "more looks")
            assert stage.aws.completed == [], "its request is not done"
            end.set()
            assert [client.response().status for client in clients] == [200, 200]
        wait_until(lambda: stage.aws.completed == ["i-2 drain CONTINUE"], "the lifecycle action to be completed")
        stage.lb.wait_logged("instance i-2 is drained, its lifecycle action is completed")
        assert [item["used"] for item in stage.lb.server_status("scaled")] == [True]


def test_without_aws_it_starts_and_recovers(tmp_path: Path) -> None:
    pools: dict[str, Aws] = {"p": {"ec2": {"tags": {"app": "predict", "mood": "expired"}}}}
    with ExitStack() as stack:
        stage = Stage(tmp_path / "lb", stack, pools)
        stage.aws.is_moody = True
        stage.lb.start(stage.aws.environ)
        stage.wait_error("p", "ExpiredToken")
        assert stage.ask("p") == 503
        status, body = stage.lb.admin_get("/readyz")
        assert status == 503 and "AWS (EC2 app=predict,mood=expired): DescribeInstances: ExpiredToken" in body.decode()
        stage.aws.is_moody = False
        stage.wait_used("p", "i-1 i-2 i-3")
        assert stage.ask("p") == 200
        stage.lb.stop()
