"""The examples of docs/aws.md and docs/kubernetes.md, against endpoints that speak as the platforms do.

Of an example is changed what this machine can't have: the port of its listener, and the one that instances serve at.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from tests.support.aws_endpoint import TARGET_GROUP, AwsEndpoint, Instance
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.kubernetes_api import KubernetesApi
from tests.support.kubernetes_objects import endpoint, endpoint_slice
from tests.support.origin import Origin
from tests.support.pages import blocks
from tests.support.ports import consecutive_ports
from tests.support.rig import get
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[4]


def example(page: str, **replaced: str) -> dict[str, Any]:
    """The whole config that stands first on a page of docs/. replaced: texts in it, each of which is there."""
    text = next(block.text for block in blocks((ROOT / "docs" / page).read_text()) if block.info == "yaml")
    for old, new in replaced.items():
        assert f"{old}: " in text
        text = re.sub(rf"\b{old}: [^,\s}}]+", f"{old}: {new}", text)
    made: dict[str, Any] = yaml.safe_load(text)
    (listener,) = made["listeners"]
    listener.update(name="in", bind="127.0.0.1:0")
    made.pop("admin", None)
    return made


def used(lb: LbProxy, pool: str) -> set[str]:
    return {str(server["name"]) for server in lb.server_status(pool) if server["used"]}


def test_the_example_of_kubernetes(tmp_path: Path) -> None:
    with ExitStack() as stack:
        api = stack.enter_context(KubernetesApi(tmp_path))
        host = "127.0.0.31"
        origin = stack.enter_context(Origin(host=host))
        pod = endpoint(host, pod="predict-1")
        ports = [{"name": "http", "port": origin.port, "protocol": "TCP"}]
        api.put(endpoint_slice("slice-1", pod, ports=ports))
        lb = LbProxy(example("kubernetes.md"), tmp_path / "lb").start({"KUBECONFIG": api.kubeconfig()})
        stack.push(lb)
        wait_until(lambda: used(lb, "predict") == {f"predict-1/{host}"}, "the pod to be used")
        with Client(lb.port("in")) as client:
            assert client.ask(get("/x")).status == 200
        origin.reset()


def test_the_example_of_aws(tmp_path: Path) -> None:
    with ExitStack() as stack:
        aws = stack.enter_context(AwsEndpoint())
        port = aws.task_port = consecutive_ports(1)
        host = "127.0.0.32"
        origin = stack.enter_context(Origin(host=host, port=port))
        aws.instances["i-1"] = Instance(host, tags={"app": "predict", "stage": "prod"})
        aws.instances["i-2"] = Instance(host, tags={"app": "predict", "stage": "test"})
        aws.group["i-1"] = "InService"
        aws.targets["i-1", port] = "healthy"
        aws.tasks["t1"] = host
        config = example("aws.md", port=str(port))
        assert config["pools"]["registered"]["discovery"]["aws"]["target_group"] == TARGET_GROUP
        lb = LbProxy(config, tmp_path / "lb").start(aws.environ)
        stack.push(lb)
        for pool in config["pools"]:
            wait_until(lambda: len(used(lb, pool)) == 1, f"the server of {pool} to be used")  # noqa: B023
        paths = {"/tagged/x": "tagged", "/registered/x": "registered", "/tasks/x": "tasks", "/x": "scaled"}
        with Client(lb.port("in")) as client:
            for path, pool in paths.items():
                assert client.ask(get(path)).status == 200
                assert lb.metric("requests_total", pool=pool, code="2xx") == 1
        origin.reset()
