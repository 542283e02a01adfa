"""The deployment files load, agree with each other and with the program."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from lbproxy.cli import common, program
from lbproxy.config import loader
from tests.architecture.rules import ROOT
from tests.support.stop_time import stops_within_s

Tree = dict[str, Any]
TEMPLATES = ROOT / "deploy/helm/lbproxy/templates"  # they are YAML when Helm has rendered them
DEPLOY_YAML = sorted(
    path for path in (ROOT / "deploy").rglob("*.y*ml") if TEMPLATES not in path.parents and path.parent.name != "aws"
)
CONFIGS = sorted((ROOT / "config").glob("*.yaml"))
assert DEPLOY_YAML and CONFIGS


def kubernetes() -> dict[str, Tree]:
    documents = yaml.safe_load_all((ROOT / "deploy/kubernetes/sidecar.yaml").read_text())
    return {document["kind"]: document for document in documents}


def compose() -> Tree:
    value: Tree = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return value


def containers() -> dict[str, Tree]:
    return {item["name"]: item for item in kubernetes()["Deployment"]["spec"]["template"]["spec"]["containers"]}


def dockerfile_lines(word: str) -> list[str]:
    return re.findall(rf"(?m)^{word} (.+)$", (ROOT / "Dockerfile").read_text())


@pytest.mark.parametrize("path", [ROOT / "compose.yaml", *DEPLOY_YAML], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_yaml_file_loads(path: Path) -> None:
    assert all(isinstance(document, dict) for document in yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_example_config_is_accepted(path: Path) -> None:
    assert loader.load_file(path, {}).config.listeners


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Every lbproxy command that a deployment file runs."""
    yield "Dockerfile CMD", json.loads(dockerfile_lines("CMD")[-1])
    health = dockerfile_lines("HEALTHCHECK")[0].partition("CMD ")[2]
    yield "Dockerfile HEALTHCHECK", json.loads(health)[1:]
    yield "sidecar.yaml", containers()["lbproxy"]["args"]
    yield "lbproxy.service", unit()["Service"]["ExecStart"].split()[1:]


def test_their_commands_are_ones_that_the_program_has() -> None:
    lines = dict(command_lines())
    parser = program.build_parser()
    commands = {name: parser.parse_args(program.with_command(line)).command for name, line in lines.items()}
    assert commands == {
        "Dockerfile CMD": "run",
        "Dockerfile HEALTHCHECK": "healthcheck",
        "sidecar.yaml": "run",
        "lbproxy.service": "run",
    }


# --- Docker, compose ---


def test_the_image_runs_lbproxy_itself_as_a_user_without_rights() -> None:
    assert dockerfile_lines("ENTRYPOINT") == ['["lbproxy"]']  # exec form: SIGTERM reaches lbproxy, not a shell
    assert set(dockerfile_lines("USER")) == {"65532:65532"}
    assert "lbproxy" in dockerfile_lines("FROM")[-1]


def test_what_the_image_copies_is_not_ignored() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources = [word for line in dockerfile_lines("COPY") if "--from" not in line for word in line.split()[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists()
        assert source.split("/")[0] in allowed, f".dockerignore leaves {source} out"


def test_compose_builds_stages_that_exist_and_gives_lbproxy_time_to_finish() -> None:
    services = compose()["services"]
    stages = {line.rpartition(" AS ")[2] for line in dockerfile_lines("FROM")}
    assert {item["build"]["target"] for item in services.values() if "build" in item} <= stages
    config = loader.load_file(ROOT / "deploy/compose/lbproxy.yaml", {}).config
    assert float(services["lbproxy"]["stop_grace_period"].removesuffix("s")) > stops_within_s(config.shutdown.grace)


def test_compose_s_config_names_compose_s_services() -> None:
    config = loader.load_file(ROOT / "deploy/compose/lbproxy.yaml", {}).config
    hosts = {server.address.host for server in config.pools["predict"].servers}
    assert hosts == {name for name in compose()["services"] if name.startswith("predict-")}
    assert all(server.address.port == 5000 for server in config.pools["predict"].servers)
    published = {text.rpartition(":")[2] for text in compose()["services"]["lbproxy"]["ports"]}
    assert config.admin.bind is not None
    assert published == {str(config.listeners[0].bind[0].port), str(config.admin.bind.port), "9090"}


def test_compose_s_prometheus_scrapes_lbproxy() -> None:
    prometheus = compose()["services"]["prometheus"]
    assert prometheus["network_mode"] == "service:lbproxy"
    scraped: Tree = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    targets = [
        target for job in scraped["scrape_configs"] for item in job["static_configs"] for target in item["targets"]
    ]
    assert targets == [common.DEFAULT_ADMIN]


def test_compose_mounts_files_that_exist() -> None:
    for service in compose()["services"].values():
        for volume in service.get("volumes", []):
            assert (ROOT / volume.partition(":")[0]).exists(), volume


# --- Kubernetes ---


def sidecar_config() -> loader.Loaded:
    return loader.load_text(kubernetes()["ConfigMap"]["data"]["lbproxy.yaml"], "sidecar.yaml", {})


def test_the_pod_s_config_is_accepted_without_warnings() -> None:
    assert sidecar_config().warnings == ()


def test_the_pod_s_probes_ask_the_admin_address() -> None:
    lbproxy, admin = containers()["lbproxy"], sidecar_config().config.admin.bind
    assert admin is not None
    assert admin.host == "0.0.0.0", "the kubelet is not on the pod's loopback"
    ports = {port["name"]: port["containerPort"] for port in lbproxy["ports"]}
    assert ports == {"http": sidecar_config().config.listeners[0].bind[0].port, "admin": admin.port}
    probes = {name: lbproxy[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {probe["port"] for probe in probes.values()} == {"admin"}
    assert probes["readinessProbe"]["path"] == "/readyz"
    assert probes["livenessProbe"]["path"] == probes["startupProbe"]["path"] == "/healthz"


def test_the_pod_stops_in_order() -> None:
    shutdown = sidecar_config().config.shutdown
    lbproxy, *servers = containers().values()
    assert shutdown.delay > 0
    assert "lifecycle" not in lbproxy
    waits = [int(server["lifecycle"]["preStop"]["exec"]["command"][1]) for server in servers]
    end = kubernetes()["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert [shutdown.grace < wait < end for wait in waits] == [True] * 3


def test_the_pod_s_servers_listen_where_lbproxy_looks() -> None:
    bound = [server["command"][-1] for name, server in containers().items() if name != "lbproxy"]
    assert [str(server.address) for server in sidecar_config().config.pools["predict"].servers] == bound


def test_the_pod_has_no_rights_it_does_not_need() -> None:
    pod = kubernetes()["Deployment"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    for container in pod["containers"]:
        context: Mapping[str, object] = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}


# --- systemd ---


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(ROOT / "deploy/systemd/lbproxy.service")
    return parser


def test_systemd_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    """Where it is installed; the programs of the unit are not, so another one stands for them."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    text = (ROOT / "deploy/systemd/lbproxy.service").read_text()
    (tmp_path / "lbproxy.service").write_text(text.replace("/opt/lbproxy/bin/lbproxy", sys.executable))
    done = subprocess.run(
        [program, "verify", "--man=no", str(tmp_path / "lbproxy.service")],
        capture_output=True,
        check=False,
        text=True,
    )
    complaints = [line for line in done.stderr.splitlines() if "lbproxy.service" in line]  # others' units are theirs
    assert complaints == []


def test_systemd_gives_lbproxy_time_to_finish_and_does_not_repeat_a_refused_config() -> None:
    default_grace = loader.load_file(ROOT / "config/minimal.yaml", {}).config.shutdown.grace
    service = unit()["Service"]
    assert int(service["TimeoutStopSec"]) > stops_within_s(default_grace)
    assert service["RestartPreventExitStatus"] == str(common.USAGE)
    assert service["DynamicUser"] == "yes"
