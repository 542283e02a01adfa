"""What deploy/ has for Kubernetes fits the API's schemas, itself, and the program."""

from __future__ import annotations

import itertools
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from referencing import Registry, Resource

from lbproxy.cli import program
from lbproxy.config import loader
from tests.architecture.rules import ROOT
from tests.support.helm import NAMESPACE, rendered
from tests.support.pages import blocks
from tests.support.stop_time import stops_within_s

Tree = dict[str, Any]
MANIFESTS = sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
CHART = ROOT / "deploy/helm/lbproxy"
assert len(MANIFESTS) >= 4

# kubernetes-validate has the schemas, and reads some MB of them for each object; so they are used without it.
SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema/v1.34.0-local-strict"
OTHERS = {
    # No schema of these is to be had in a package: what they must have, from their own documentation.
    "ServiceMonitor": ("monitoring.coreos.com/v1", {"selector", "endpoints"}),
    "ScaledObject": (
        "keda.sh/v1alpha1",
        {"scaleTargetRef", "minReplicaCount", "maxReplicaCount", "cooldownPeriod", "triggers"},
    ),
}
LEAST = [{"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}]

PLAIN: Tree = {}
DAEMONS: Tree = {
    "kind": "DaemonSet",
    "ports": [{"name": "http", "containerPort": 5000, "port": 80, "hostPort": 80}],
    "tolerations": [{"operator": "Exists"}],
    "nodeSelector": {"a": "b"},
}
EVERYTHING: Tree = {
    "autoscaling": {"enabled": True},
    "serviceMonitor": {"enabled": True, "labels": {"team": "models"}},
    "networkPolicy": {"enabled": True, "from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
    "shutdown": {"by": "lbproxy", "delaySeconds": 7},
    "admin": {"tokenSecret": {"name": "lbproxy-admin"}},
    "rbac": {"namespaces": ["a", "b"]},
    "service": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "annotations": {"a": "b"}},
    "config": {"watch": None},
    "env": [{"name": "A", "value": "b"}],
    "volumes": [{"name": "tls", "secret": {"secretName": "tls"}}],
    "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
    "imagePullSecrets": [{"name": "registry"}],
    "priorityClassName": "high",
    "podLabels": {"team": "models"},
    "podAnnotations": {"c": "d"},
    "affinity": {"nodeAffinity": {}},
    "serviceAccount": {"annotations": {"e": "f"}},
    "fullnameOverride": "front",
}
BARE: Tree = {
    "podDisruptionBudget": {"enabled": False},
    "rbac": {"create": False},
    "serviceAccount": {"create": False},
    "topologySpread": {"enabled": False},
    "shutdown": {"delaySeconds": 0},
}
ZONES: Tree = {
    "rbac": {"nodes": True},
    "config": {"pools": {"predict": {"discovery": {"kubernetes": {"prefer_zone": True}}}}},
}
PAGE = (ROOT / "docs/kubernetes.md").read_text()
BLOCKS = blocks(PAGE)
(COMMAND,) = [block.text.split() for block in BLOCKS if block.text.startswith("helm install ")]


def as_values(settings: list[str]) -> Tree:
    """What `--set` makes of `a.b=c`."""
    made: Tree = {}
    for setting in settings:
        path, _, value = setting.partition("=")
        *above, last = path.split(".")
        inner = made
        for part in above:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return made


DOCUMENTED = as_values([word for before, word in itertools.pairwise(COMMAND) if before == "--set"])
WRONG: list[Tree] = [{"kind": "StatefulSet"}, {"shutdown": {"by": "hand"}}]
CASES = {
    "plain": PLAIN,
    "daemons": DAEMONS,
    "everything": EVERYTHING,
    "bare": BARE,
    "zones": ZONES,
    "documented": DOCUMENTED,
}


@cache
def helm() -> list[dict[str, str]]:
    return rendered(CHART, [*CASES.values(), *WRONG])


def documents(case: str) -> list[Tree]:
    texts = helm()[list(CASES).index(case)]
    assert "error" not in texts, texts["error"]
    files = [text for name, text in texts.items() if name.endswith(".yaml")]
    return [item for text in files for item in yaml.safe_load_all(text) if item]


def manifest(path: Path) -> list[Tree]:
    return [item for item in yaml.safe_load_all(path.read_text()) if item]


def by_kind(items: list[Tree], kind: str) -> list[Tree]:
    return [item for item in items if item["kind"] == kind]


@cache
def definitions() -> Registry[Any]:
    known = Resource.from_contents(json.loads((SCHEMAS / "_definitions.json").read_text()))
    registry: Registry[Any] = Registry().with_resource("_definitions.json", known)
    return registry.crawl()


def check(item: Tree) -> None:
    """It is what the API takes, and has no key that the API would drop."""
    kind = item["kind"]
    if kind not in OTHERS:
        group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", item["apiVersion"])  # rbac.authorization.k8s.io/v1: rbac-v1
        schema = json.loads((SCHEMAS / f"{kind.lower()}-{group}.json").read_text())
        jsonschema.Draft202012Validator(schema, registry=definitions()).validate(item)
        return
    version, keys = OTHERS[kind]
    assert item["apiVersion"] == version
    assert item["spec"].keys() == keys


def config_of(items: list[Tree]) -> loader.Loaded:
    (held,) = by_kind(items, "ConfigMap")
    return loader.load_text(held["data"]["lbproxy.yaml"], "lbproxy.yaml", {"LBPROXY_TOKEN": "token"})


def workload(items: list[Tree]) -> Tree:
    (found,) = [
        item
        for item in items
        if item["kind"] in ("Deployment", "DaemonSet") and item["metadata"]["name"] not in ("predict",)
    ]
    return found


def check_workload(items: list[Tree]) -> None:
    """Pod, config, Service and account agree with each other and with the program."""
    pod = workload(items)["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    config = config_of(items).config
    parser = program.build_parser()
    assert parser.parse_args(program.with_command(container["args"])).command == "run"

    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert config.admin.bind is not None
    assert (config.admin.bind.host, config.admin.bind.port) == ("0.0.0.0", ports.pop("admin"))
    assert list(ports.values()) == [listener.bind[0].port for listener in config.listeners]
    probes = [container[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert [(probe["path"], probe["port"]) for probe in probes] == [
        ("/healthz", "admin"),
        ("/readyz", "admin"),
        ("/healthz", "admin"),
    ]

    hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
    waits = int(hook[1])
    assert not (waits and config.shutdown.delay), "one of the two waits for the cluster"
    assert waits + config.shutdown.grace < pod["spec"]["terminationGracePeriodSeconds"]

    context = container["securityContext"]
    assert context == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True

    labels = pod["metadata"]["labels"]
    assert workload(items)["spec"]["selector"]["matchLabels"].items() <= labels.items()
    service, *_ = by_kind(items, "Service")
    assert service["spec"]["selector"].items() <= labels.items()
    assert {port["targetPort"] for port in service["spec"]["ports"]} == ports.keys()
    for budget in by_kind(items, "PodDisruptionBudget"):
        assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()


def check_rights(items: list[Tree]) -> None:
    """As little as will do, for the account that the pod has."""
    for role in by_kind(items, "Role"):
        assert role["rules"] == LEAST
    account = workload(items)["spec"]["template"]["spec"]["serviceAccountName"]
    for binding in by_kind(items, "RoleBinding"):
        assert [subject["name"] for subject in binding["subjects"]] == [account]
        assert binding["roleRef"]["name"] in {role["metadata"]["name"] for role in by_kind(items, "Role")}
    for role in by_kind(items, "ClusterRole"):
        assert role["rules"] == [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]
    for binding in by_kind(items, "ClusterRoleBinding"):
        assert [subject["name"] for subject in binding["subjects"]] == [account]
        assert binding["roleRef"]["name"] in {role["metadata"]["name"] for role in by_kind(items, "ClusterRole")}


# --- plain manifests ---


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_every_manifest_fits_the_api(path: Path) -> None:
    items = manifest(path)
    assert items
    for item in items:
        check(item)


def test_a_key_that_the_api_does_not_know_is_found() -> None:
    spoilt = manifest(ROOT / "deploy/kubernetes/sidecar.yaml")[1]
    check(spoilt)
    spoilt["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["periodSecond"] = 1
    with pytest.raises(jsonschema.ValidationError, match="'periodSecond' was unexpected"):
        check(spoilt)


GATEWAY = manifest(ROOT / "deploy/kubernetes/gateway.yaml")


def test_the_gateway_s_parts_agree() -> None:
    check_workload(GATEWAY)
    check_rights(GATEWAY)
    assert config_of(GATEWAY).warnings == ()


def test_the_gateway_follows_the_service_of_its_servers() -> None:
    discovery = config_of(GATEWAY).config.pools["predict"].discovery
    assert discovery is not None and discovery.kubernetes is not None
    service = next(item for item in by_kind(GATEWAY, "Service") if item["metadata"]["name"] == "predict")
    servers = next(item for item in by_kind(GATEWAY, "Deployment") if item["metadata"]["name"] == "predict")
    assert discovery.kubernetes.service == service["metadata"]["name"]
    assert discovery.kubernetes.port in {port["name"] for port in service["spec"]["ports"]}
    pod = servers["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    (container,) = pod["spec"]["containers"]
    assert {port["targetPort"] for port in service["spec"]["ports"]} == {port["name"] for port in container["ports"]}


def test_servers_are_scaled_by_a_metric_that_there_is() -> None:
    (hpa,) = manifest(ROOT / "deploy/kubernetes/hpa.yaml")
    (keda,) = manifest(ROOT / "deploy/kubernetes/keda.yaml")
    (metric,) = hpa["spec"]["metrics"]
    (trigger,) = keda["spec"]["triggers"]
    name = metric["external"]["metric"]["name"]
    assert f"`{name}`" in (ROOT / "docs/metrics.md").read_text()
    assert trigger["metadata"]["query"] == f'sum({name}{{pool="predict"}})'
    targets = {hpa["spec"]["scaleTargetRef"]["name"], keda["spec"]["scaleTargetRef"]["name"]}
    assert targets <= {item["metadata"]["name"] for item in by_kind(GATEWAY, "Deployment")}


# --- the chart ---


@pytest.mark.parametrize("case", CASES)
def test_what_the_chart_makes_fits_the_api_and_itself(case: str) -> None:
    items = documents(case)
    for item in items:
        check(item)
    check_workload(items)
    check_rights(items)
    assert config_of(items).warnings == ()


def test_the_chart_s_objects_have_names_of_their_own() -> None:
    for case in CASES:
        names = [
            (item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in documents(case)
        ]
        assert len(names) == len(set(names)) > 0


@pytest.mark.parametrize(
    ("case", "kinds"),
    [
        (
            "plain",
            "ConfigMap Deployment PodDisruptionBudget Role RoleBinding Service ServiceAccount",
        ),
        ("daemons", "ConfigMap DaemonSet Role RoleBinding Service ServiceAccount"),
        (
            "everything",
            "ConfigMap Deployment HorizontalPodAutoscaler NetworkPolicy PodDisruptionBudget Role Role RoleBinding "
            "RoleBinding Service Service ServiceAccount ServiceMonitor",
        ),
        ("bare", "ConfigMap Deployment Service"),
        (
            "zones",
            "ClusterRole ClusterRoleBinding ConfigMap Deployment PodDisruptionBudget Role RoleBinding Service "
            "ServiceAccount",
        ),
    ],
)
def test_the_chart_makes_what_the_values_ask_for(case: str, kinds: str) -> None:
    assert " ".join(sorted(item["kind"] for item in documents(case))) == kinds


def test_somebody_waits_for_the_cluster_and_it_is_one() -> None:
    def stop(case: str) -> tuple[object, float, float, int]:
        spec = workload(documents(case))["spec"]["template"]["spec"]
        shutdown = config_of(documents(case)).config.shutdown
        hook = spec["containers"][0].get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
        return hook, shutdown.delay, shutdown.grace, spec["terminationGracePeriodSeconds"]

    assert stop("plain") == (["sleep", "5"], 0.0, 30.0, 50)
    assert stop("everything") == (None, 7.0, 37.0, 52)
    assert stop("bare") == (None, 0.0, 30.0, 45)

    for case in ("plain", "everything", "bare"):
        hook, _, grace, ends_s = stop(case)
        waits_s = 0 if hook is None else 5
        assert waits_s + stops_within_s(grace) < ends_s


def test_a_token_comes_from_a_secret() -> None:
    assert config_of(documents("everything")).config.admin.token == "token"
    env = workload(documents("everything"))["spec"]["template"]["spec"]["containers"][0]["env"]
    assert env[0] == {
        "name": "LBPROXY_TOKEN",
        "valueFrom": {"secretKeyRef": {"name": "lbproxy-admin", "key": "token"}},
    }
    assert config_of(documents("plain")).config.admin.token is None


def test_a_config_that_is_not_watched_makes_new_pods() -> None:
    def annotations(case: str) -> Tree:
        found: Tree = workload(documents(case))["spec"]["template"]["metadata"]["annotations"]
        return found

    assert "checksum/config" in annotations("everything") and "checksum/config" not in annotations("plain")


def test_metrics_are_read_from_a_service_of_their_own() -> None:
    items = documents("everything")
    (monitor,) = by_kind(items, "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"]
    watched = [item for item in by_kind(items, "Service") if wanted.items() <= item["metadata"]["labels"].items()]
    assert [item["metadata"]["name"] for item in watched] == ["front-admin"]
    assert monitor["spec"]["endpoints"][0]["port"] == watched[0]["spec"]["ports"][0]["name"]


def test_the_network_policy_lets_clients_and_the_namespace_in() -> None:
    (policy,) = by_kind(documents("everything"), "NetworkPolicy")
    clients, admin = policy["spec"]["ingress"]
    assert (clients["ports"], clients["from"]) == ([{"port": 5000}], [{"ipBlock": {"cidr": "10.0.0.0/8"}}])
    assert (admin["ports"], admin["from"]) == ([{"port": 8404}], [{"podSelector": {}}])


def test_rights_are_given_where_the_services_are() -> None:
    assert [role["metadata"]["namespace"] for role in by_kind(documents("plain"), "Role")] == [NAMESPACE]
    assert [role["metadata"]["namespace"] for role in by_kind(documents("everything"), "Role")] == ["a", "b"]
    subjects = [item["subjects"][0]["namespace"] for item in by_kind(documents("everything"), "RoleBinding")]
    assert subjects == [NAMESPACE] * 2


def test_a_pod_knows_its_node_where_zones_count() -> None:
    (container,) = workload(documents("zones"))["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [
        {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    ]


def documented(key: str) -> object:
    """What docs/kubernetes.md has under this key, in one of its blocks."""
    found = [yaml.safe_load(block.text) for block in BLOCKS if block.info == "yaml manifest"]
    (value,) = [item[key] for item in found if key in item]
    return value


def test_what_the_docs_give_is_what_the_chart_makes() -> None:
    assert documented("rules") == LEAST
    (container,) = workload(documents("zones"))["spec"]["template"]["spec"]["containers"]
    assert documented("env") == container["env"]


def test_the_command_in_the_docs_installs_what_follows_a_service() -> None:
    assert config_of(documents("documented")).config.pools["predict"].discovery is not None
    assert COMMAND[:4] == ["helm", "install", "lbproxy", str(CHART.relative_to(ROOT))]
    assert DOCUMENTED == {"config": {"pools": {"predict": {"discovery": {"kubernetes": {"service": "predict"}}}}}}


def test_the_values_in_the_docs_are_there() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    table = PAGE.partition("| value | what it makes |\n")[2].partition("\n\n")[0]
    names = [name for row in table.splitlines()[1:] for name in re.findall("`([^`]+)`", row.split("|")[1])]
    assert len(names) >= 10
    for name in names:
        found = values
        for part in name.split("."):
            assert part in found, name
            found = found[part]


def test_values_that_mean_nothing_are_refused() -> None:
    errors = [texts["error"] for texts in helm()[len(CASES) :]]
    assert "kind is Deployment or DaemonSet" in errors[0]
    assert "shutdown.by is preStop or lbproxy" in errors[1]
