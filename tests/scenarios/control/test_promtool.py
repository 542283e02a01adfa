"""Prometheus's own tool reads what lbproxy and its deploy files say."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lbproxy.control.metrics import Exposition, Registry
from lbproxy.telemetry.slots import LISTENER, POOL, PROCESS, SERVER, TRAFFIC, Slots

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None and "CI" not in os.environ,  # in CI its absence is a failure
    reason="promtool is not installed: make system",
)


def promtool(*arguments: str, text: bytes = b"") -> str:
    """Run promtool in deploy/prometheus; its output if it found fault, else "". It takes 3 s of CPU for the alerts."""
    done = subprocess.run(["promtool", *arguments], input=text, capture_output=True, cwd=PROMETHEUS, timeout=120)
    output = (done.stdout + done.stderr).decode()
    return output if done.returncode or arguments == ("check", "metrics") else ""


def test_the_exposition_has_no_lint() -> None:
    slots = Slots()
    registry = Registry("1.2.3")
    labels = {SERVER: ("predict", "a:1"), POOL: ("predict",), LISTENER: ("front",), TRAFFIC: ("front", "predict")}
    for layout, values in labels.items():
        registry.add(layout, values, slots.allocate(layout))
    registry.add(PROCESS, (), slots.allocate(PROCESS))
    registry.readers["client_connections"] = lambda: [(("front",), 1)]
    assert promtool("check", "metrics", text=Exposition(registry).render()) == ""


def test_promtool_would_complain() -> None:
    assert "counter metrics should have" in promtool("check", "metrics", text=b"# HELP a b\n# TYPE a counter\na 1\n")


def test_the_scrape_config_is_valid() -> None:
    assert promtool("check", "config", "prometheus.yml") == ""


def test_the_alerts_fire_when_they_should() -> None:
    assert promtool("check", "rules", "alerts.yml") == ""
    assert promtool("test", "rules", "alerts_test.yml", "alerts_of_days_test.yml") == ""


def test_the_panels_of_the_dashboard_ask_in_promql(tmp_path: Path) -> None:
    board = json.loads((ROOT / "deploy" / "grafana" / "lbproxy.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    asked += [item["expr"] for item in board["annotations"]["list"]]
    rules = [{"record": f"r{n}", "expr": text.replace("$__rate_interval", "1m")} for n, text in enumerate(asked)]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    assert promtool("check", "rules", str(file)) == ""
    assert [text for text in asked if re.search(r"\$(?!__rate_interval|instance|pool|listener|job)", text)] == []
