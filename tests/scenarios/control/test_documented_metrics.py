"""What a running lbproxy exports is what docs/metrics.md describes, and alerts and dashboard ask for nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.build import ROOT
from tests.support.certificates import Authority
from tests.support.crew import CrewProxy
from tests.support.daemon import LbProxy
from tests.support.origin import Origin

Families = dict[str, tuple[str, frozenset[str]]]


def everything(origin: Origin, folder: Path) -> dict[str, object]:
    """A listener and a pool of every kind, so that no family has a reason to be away."""
    pool = {"servers": [origin.address], "health_check": "tcp"}
    return {
        "listeners": [
            {"name": "plain", "bind": "127.0.0.1:0", "routes": [{"name": "named", "split": {"queued": 1}}]},
            {
                "name": "tls",
                "bind": "127.0.0.1:0",
                "pool": "queued",
                "tls": Authority(folder).issue("s", "localhost").tls,
            },
            {"name": "tcp", "bind": "127.0.0.1:0", "pool": "tcp", "mode": "tcp"},
        ],
        "rate_limits": [{"key": "client_ip", "rate": "1000000/s"}],
        "pools": {
            "queued": {
                **pool,
                "max_inflight": 1,
                "servers": [f"localhost:{origin.port}"],
                "queue": {"fair_by": "client_ip", "priority": {}},
            },
            "tcp": pool,
        },
    }


@pytest.fixture(scope="module")
def exposition(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """/metrics of a daemon with two workers."""
    folder = tmp_path_factory.mktemp("documented")
    with Origin() as origin, CrewProxy({"workers": 2, **everything(origin, folder)}, folder / "lb") as lb:
        lb.wait_all_up()
        yield lb.exposition()


def exported(exposition: str) -> Families:
    """Type and labels (without `le`) of every family of lbproxy's own, by the name that the pages use."""
    kinds = dict(re.findall(r"(?m)^# TYPE (lbproxy_\w+) (\w+)$", exposition))
    assert set(kinds) == set(re.findall(r"(?m)^# HELP (lbproxy_\w+) \S", exposition))
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            owner = sample.name if sample.name in kinds else re.sub("_(bucket|sum|count)$", "", sample.name)
            labels.setdefault(owner, set()).update(sample.labels.keys() - {"le"})
    return {name: (kind, frozenset(labels.get(name, ()))) for name, kind in kinds.items()}


def described() -> Families:
    """The same of the tables of the page."""
    page = (ROOT / "docs/metrics.md").read_text()
    rows = re.findall(r"^\| `(lbproxy_\w+)` \| (\w+) \| (.*?) \| \S.* \|$", page, re.MULTILINE)
    return {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def test_what_is_exported_is_described_and_the_reverse(exposition: str) -> None:
    ours, page = exported(exposition), described()
    assert sorted(ours.keys() - page.keys()) == [], "exported, and not in docs/metrics.md"
    assert sorted(page.keys() - ours.keys()) == [], "in docs/metrics.md, and not exported"
    assert ours == page


def test_one_process_exports_the_same_but_for_its_workers(exposition: str, tmp_path: Path) -> None:
    with Origin() as origin, LbProxy(everything(origin, tmp_path), tmp_path / "lb") as lb:
        alone = exported(lb.exposition())
    several = exported(exposition)
    assert several.keys() - alone.keys() == {
        "lbproxy_worker_up",
        "lbproxy_worker_restarts_total",
        "lbproxy_worker_cpu_seconds_total",
        "lbproxy_worker_resident_memory_bytes",
    }
    lag = "lbproxy_loop_lag_seconds"
    assert several.pop(lag) == (alone[lag][0], alone[lag][1] | {"worker"})
    assert alone.pop(lag)
    assert alone == {name: several[name] for name in alone}


def series(exposition: str) -> dict[str, set[str]]:
    """Every name that can be asked for, with the values of its labels as name=value."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(f"{key}={value}" for key, value in sample.labels.items())
    return found


# Labels whose values are the operator's names, or which Prometheus adds.
OPEN_LABELS = {"pool", "server", "listener", "certificate", "instance", "job", "route", "version"}


def expressions(path: Path) -> list[str]:
    """What is asked of Prometheus in alert rules, a dashboard or a page."""
    text = path.read_text()
    if path.suffix == ".json":
        return [target["expr"] for panel in json.loads(text)["panels"] for target in panel.get("targets", [])]
    return [text]


@pytest.mark.parametrize(
    "file", ["deploy/prometheus/alerts.yml", "deploy/grafana/lbproxy.json", "docs/metrics.md", "docs", "README.md"]
)
def test_what_is_asked_for_is_exported(file: str, exposition: str) -> None:
    """Names of series, and the values that selectors compare a label with."""
    known = series(exposition)
    families = set(exported(exposition))
    files = sorted((ROOT / file).glob("*.md")) if file == "docs" else [ROOT / file]
    wrong = []
    for text in [text for path in files for text in expressions(path)]:
        for name, selector in re.findall(r"\b((?:lbproxy|process)_[a-z0-9_]*[a-z0-9])(?:\{([^}]*)\})?", text):
            if name not in known and name not in families:
                wrong.append(name)
            for label, operator, value in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', selector):
                values = value.split("|") if "~" in operator else [value]
                if label not in OPEN_LABELS:
                    wrong += [f"{name}{{{label}={one}}}" for one in values if f"{label}={one}" not in known[name]]
    assert wrong == []
