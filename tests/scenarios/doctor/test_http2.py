"""The doctor at servers of HTTP/2 that are not our own: gRPC's, Hypercorn, nghttpd."""

from __future__ import annotations

import sys
from pathlib import Path

from lbproxy.config.loader import load_text
from lbproxy.doctor.advice import advise
from lbproxy.doctor.examining import Options, Patient, examine
from lbproxy.doctor.verdict import judge
from tests.support.build import ROOT
from tests.support.certificates import Authority, server_wrap
from tests.support.origin import Origin
from tests.support.programs import started
from tests.support.servers import needed
from tests.support.waiting import PATIENCE_S

QUICK = Options(timeout_s=PATIENCE_S, idle_s=0.0)


async def seen(servers: str, more: str = "") -> tuple[list[Patient], dict[str, str | int]]:
    """What was seen of the servers of a pool, and the lines that fit it."""
    config = load_text(
        f'listeners: [{{bind: "127.0.0.1:0", pool: p}}]\npools: {{p: {{servers: {servers}{more}}}}}', "x.yaml", {}
    ).config
    patients = await examine(config, ["p"], QUICK, base_dir=".")
    verdicts = [judge(patient.evidence) for patient in patients]
    return patients, dict(advise(config.pools["p"], (), verdicts).lines)


async def test_a_server_of_grpc(tmp_path: Path) -> None:
    def command(port: int) -> list[str]:
        return [sys.executable, str(ROOT / "tests/support/grpc_echo.py"), str(port), "one"]

    with started(command, tmp_path, "grpc") as (_, port):
        for check in ("", ", health_check: /health"):
            [patient], lines = await seen(f'["127.0.0.1:{port}"]', check)
            answer = patient.evidence.http2
            assert answer is not None and answer.is_grpc and answer.is_serving, patient.evidence
            assert lines == {"protocol": "h2", "health_check": "grpc"}
            assert judge(patient.evidence).problems == ()
        [patient], lines = await seen(f'["127.0.0.1:{port}"]', ", protocol: h2, health_check: grpc")
        assert lines == {} and judge(patient.evidence).problems == ()


async def test_a_server_of_both_is_one_of_http_1(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("async def app(scope, receive, send):\n    raise OSError\n")

    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "hypercorn", "--bind", f"127.0.0.1:{port}", f"{tmp_path}/app.py:app"]

    with started(command, tmp_path, "hypercorn") as (_, port):
        [patient], lines = await seen(f'["127.0.0.1:{port}"]')
        assert patient.evidence.http2 is None and "protocol" not in lines
        [patient], lines = await seen(f'["127.0.0.1:{port}"]', ", protocol: h2")
        assert patient.evidence.http2 is not None and not patient.evidence.http2.is_grpc and lines == {}


async def test_tls_tells_by_alpn(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    files = authority.issue("h2", "127.0.0.1")
    (tmp_path / "www").mkdir()

    def command(port: int) -> list[str]:
        return [needed("nghttpd"), "-d", str(tmp_path / "www"), "-a", "127.0.0.1", str(port), files.key, files.cert]

    tls = f", tls: {{ca: {authority.ca}}}"
    with started(command, tmp_path, "nghttpd") as (_, port), Origin(wrap=server_wrap(files)) as old:
        [patient], lines = await seen(f'["127.0.0.1:{port}"]', tls)
        assert patient.evidence.http2 is not None and lines["protocol"] == "h2"
        [patient], _ = await seen(f'["{old.address}"]', f"{tls}, protocol: h2")
        assert patient.evidence.http2 is None
        assert "does not speak HTTP/2" in judge(patient.evidence).problems[-1]
