"""A real Prometheus scrapes lbproxy with the configuration that is delivered."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.build import ROOT
from tests.support.daemon import LbProxy
from tests.support.servers import Gunicorn, needed, session
from tests.support.waiting import wait_until

DELIVERED = ROOT / "deploy" / "prometheus"
_LISTENING = re.compile(r'msg="Listening on"[^\n]*?address=127\.0\.0\.1:(\d+)')


class Prometheus:
    """A running server; `query` asks its HTTP API."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}/api/v1"
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> dict[str, list[dict[str, object]]]:
        with self._opener.open(f"{self._base}/{path}", timeout=60) as answer:
            told = json.load(answer)
        assert told["status"] == "success", told
        data: dict[str, list[dict[str, object]]] = told["data"]
        return data

    def query(self, expression: str) -> list[float]:
        """The values that an expression has now."""
        result = self.get(f"query?{urllib.parse.urlencode({'query': expression})}")["result"]
        return [float(sample["value"][1]) for sample in result]  # type: ignore[index]


@contextmanager
def prometheus(admin_port: int, folder: Path) -> Iterator[Prometheus]:
    """Prometheus with the delivered files; only the target and the interval are other ones."""
    program = needed("prometheus")
    shutil.copy(DELIVERED / "alerts.yml", folder)
    text = (DELIVERED / "prometheus.yml").read_text()
    assert "127.0.0.1:8404" in text and "scrape_interval: 15s" in text
    text = text.replace("127.0.0.1:8404", f"127.0.0.1:{admin_port}").replace(": 15s", ": 500ms")
    (folder / "prometheus.yml").write_text(text)
    log = folder / "prometheus.log"
    command = [
        program,
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        "--web.listen-address=127.0.0.1:0",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
    try:

        def port() -> int:
            assert process.poll() is None, log.read_text()
            found = _LISTENING.search(log.read_text())
            return int(found[1]) if found and "Server is ready" in log.read_text() else 0

        yield Prometheus(wait_until(port, "Prometheus to listen"))
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_prometheus_scrapes_what_lbproxy_counts(echo_server: Gunicorn, tmp_path: Path) -> None:
    pool = {"servers": [echo_server.address], "health_check": "/health"}
    settings: dict[str, object] = {
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
        "pools": {"p": pool},
    }
    (tmp_path / "prometheus").mkdir()
    with (
        LbProxy(settings, tmp_path / "lb") as lb,
        session() as client,
        prometheus(lb.port("admin"), tmp_path / "prometheus") as seen,
    ):
        for _ in range(50):
            assert client.post(f"http://127.0.0.1:{lb.port('in')}/predict", json={}, timeout=60).status_code == 200
        wait_until(lambda: seen.query('up{job="lbproxy"}') == [1.0], "Prometheus to see lbproxy up")
        posts = 'lbproxy_requests_total{listener="in",pool="p",method="POST",code="2xx"}'
        wait_until(lambda: seen.query(posts) == [50.0], "Prometheus to see 50 requests")
        assert seen.query('lbproxy_server_up{pool="p"}') == [1.0]
        assert seen.query("lbproxy_request_duration_seconds_count") == [50.0]
        assert seen.query("process_open_fds > 0")
        quantile = "histogram_quantile(0.5, sum by (le) (lbproxy_request_duration_seconds_bucket))"
        assert seen.query(quantile)[0] > 0
        (target,) = seen.get("targets")["activeTargets"]
        assert target["lastError"] == ""
        groups = seen.get("rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]  # type: ignore[attr-defined]
        wait_until(lambda: all_evaluated(seen), "every alert rule to be evaluated")
        assert len(rules) > 5
        assert not [rule for rule in rules if rule["state"] == "firing"]


def all_evaluated(seen: Prometheus) -> bool:
    groups = seen.get("rules")["groups"]
    return all(rule["health"] == "ok" for group in groups for rule in group["rules"])  # type: ignore[attr-defined]


def test_promtool_finds_no_fault_in_the_live_text(echo_server: Gunicorn, tmp_path: Path) -> None:
    pool = {"servers": [echo_server.address], "health_check": "/health"}
    settings: dict[str, object] = {
        "listeners": [
            {"name": "in", "bind": "127.0.0.1:0", "pool": "p"},
            {"name": "tcp", "bind": "127.0.0.1:0", "pool": "p", "mode": "tcp"},
        ],
        "pools": {"p": pool},
    }
    with LbProxy(settings, tmp_path) as lb, session() as client:
        for listener in ("in", "tcp"):
            assert client.get(f"http://127.0.0.1:{lb.port(listener)}/", timeout=60).status_code == 200
        text = lb.exposition()
    command = [needed("promtool"), "check", "metrics"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
