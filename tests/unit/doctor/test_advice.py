"""Which lines fit a pool, given what its servers are; and that a config with them loads."""

from __future__ import annotations

import pytest

from lbproxy.config.loader import load_text
from lbproxy.config.pool_model import Pool
from lbproxy.doctor.advice import Advice, advise, yaml_lines
from lbproxy.doctor.verdict import Verdict


def advice(*verdicts: Verdict, **written: object) -> Advice:
    """For a pool with these keys."""
    own = set(written) | {
        f"{key}.{inner}" for key, value in written.items() if isinstance(value, dict) for inner in value
    }
    return advise(Pool.model_validate({"servers": ["a:1"], **written}), own, verdicts)


SYNC = Verdict("gunicorn-sync", "gunicorn, sync workers", max_inflight=1, health_path="/health")
GTHREAD = Verdict("gunicorn-gthread", "gunicorn, gthread workers")
UVICORN = Verdict("uvicorn", "uvicorn", health_path="/health")
TRITON = Verdict("triton", "Triton")
TGI = Verdict("tgi", "tgi", max_inflight=128, health_path="/health")
OTHER = Verdict(None, "hypercorn-h11", max_inflight=8, idle_timeout_s=3.2)


@pytest.mark.parametrize(
    ("verdict", "lines"),
    [
        (SYNC, {"kind": "gunicorn-sync", "max_inflight": 1, "health_check": "/health"}),
        (GTHREAD, {"kind": "gunicorn-gthread"}),
        (UVICORN, {"kind": "uvicorn", "health_check": "/health"}),
        (TRITON, {"kind": "triton"}),
        (TGI, {"kind": "tgi"}),
        (OTHER, {"max_inflight": 8, "keep_alive.idle_timeout": "3.2s"}),
        (Verdict("uvicorn", "uvicorn", idle_timeout_s=1.6), {"kind": "uvicorn", "keep_alive.idle_timeout": "1.6s"}),
        (Verdict("uvicorn", "uvicorn", is_shared=True), {"kind": "uvicorn", "keep_alive": "off"}),
        (Verdict("gunicorn-sync", "g", max_inflight=3, is_shared=True), {"kind": "gunicorn-sync", "max_inflight": 3}),
        (Verdict(problems=("connection refused",)), {}),
    ],
)
def test_what_a_pool_with_nothing_but_servers_is_told(verdict: Verdict, lines: dict[str, object]) -> None:
    assert advice(verdict) == Advice(lines)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("verdict", "written"),
    [
        (SYNC, {"kind": "gunicorn-sync", "max_inflight": 1, "health_check": "/health"}),
        (SYNC, {"max_inflight": 1, "health_check": "/other", "kind": "gunicorn-sync"}),
        (UVICORN, {"kind": "uvicorn", "health_check": "off"}),
        (TGI, {"kind": "tgi"}),
        (OTHER, {"max_inflight": 8, "keep_alive": {"idle_timeout": "3s"}}),
        (OTHER, {"max_inflight": 8, "keep_alive": "off"}),
        (Verdict("uvicorn", "uvicorn", idle_timeout_s=59.0), {"kind": "uvicorn"}),
        (Verdict("uvicorn", "uvicorn", is_shared=True), {"kind": "uvicorn", "keep_alive": "off"}),
        (Verdict(), {}),
    ],
)
def test_a_config_that_fits_is_told_nothing(verdict: Verdict, written: dict[str, object]) -> None:
    assert advice(verdict, **written) == Advice()


def test_limits_of_the_servers_themselves_are_left_alone() -> None:
    servers = [{"address": "a:1", "max_inflight": 5}, {"address": "b:1", "max_inflight": 5}]
    assert advice(OTHER, servers=servers).lines == {"keep_alive.idle_timeout": "3.2s"}
    assert "max_inflight" in advice(OTHER, servers=[*servers, "c:1"]).lines


def test_own_keys_that_do_not_fit_are_told_although_a_kind_has_the_value() -> None:
    assert advice(TGI, max_inflight=4).lines == {"kind": "tgi", "max_inflight": 128}


def test_servers_of_one_kind_are_spoken_for_by_the_most_careful() -> None:
    slow = Verdict("waitress", "waitress", max_inflight=2, idle_timeout_s=4.0)
    assert advice(slow, Verdict("waitress", "waitress", max_inflight=4)).lines == {
        "kind": "waitress",
        "max_inflight": 2,
        "keep_alive.idle_timeout": "4s",
    }
    unknown = Verdict("waitress", "waitress")
    assert advice(slow, unknown).lines == {"kind": "waitress", "keep_alive.idle_timeout": "4s"}
    assert advice(UVICORN, Verdict("uvicorn", "uvicorn")).lines == {"kind": "uvicorn"}
    assert advice(UVICORN, Verdict(problems=("connection refused",))).lines == advice(UVICORN).lines


def test_servers_of_several_kinds_belong_in_several_pools() -> None:
    told = advice(UVICORN, SYNC, OTHER)
    assert told.lines == {}
    assert told.hints == (
        "its servers are of different kinds (gunicorn-sync, hypercorn-h11, uvicorn): make a pool for each",
    )


def test_a_kind_that_is_another_is_a_problem() -> None:
    told = advice(GTHREAD, kind="uvicorn")
    assert told.problems == ("the config says kind uvicorn, and its servers are gunicorn-gthread",)
    assert told.lines == {"kind": "gunicorn-gthread"}
    assert advice(OTHER, kind="uvicorn").problems == ()


@pytest.mark.parametrize("verdict", [SYNC, UVICORN, TRITON, TGI, OTHER, Verdict("uvicorn", "u", is_shared=True)])
def test_what_is_told_is_a_config_that_loads(verdict: Verdict) -> None:
    lines = yaml_lines({"p": advice(verdict).lines, "fine": {}})
    text = "\n".join(["listeners: [{bind: ':1', pool: p}]", *lines, "    servers: ['a:1']"])
    loaded = load_text(text, "lb.yaml", {})
    assert loaded.warnings == ()
    own = {".".join(map(str, path[2:])) for path in loaded.document.values if path[:2] == ("pools", "p")}
    assert advise(loaded.config.pools["p"], own, [verdict]) == Advice(), "and then there is nothing left to say"


def test_no_advice_is_no_lines() -> None:
    assert yaml_lines({"p": {}}) == []


CALLS = Verdict(None, "a server of gRPC", speaks_http2=True, checks_grpc=True)
PAGES = Verdict(None, "a server of gRPC", speaks_http2=True)


@pytest.mark.parametrize(
    ("verdicts", "written", "lines"),
    [
        ([CALLS], {}, {"protocol": "h2", "health_check": "grpc"}),
        ([CALLS, PAGES], {}, {"protocol": "h2"}),
        ([CALLS], {"protocol": "h2"}, {"health_check": "grpc"}),
        ([CALLS], {"protocol": "h2", "health_check": "off"}, {}),
        ([CALLS], {"protocol": "h2", "health_check": {"type": "grpc", "service": "a.B"}}, {}),
        ([CALLS, Verdict(None, "a server of gRPC")], {}, {}),
    ],
)
def test_servers_of_http_2(verdicts: list[Verdict], written: dict[str, object], lines: dict[str, object]) -> None:
    found = advice(*verdicts, **written).lines
    assert found == lines
    text = {"servers": ["a:1"], **written, **found}
    assert Pool.model_validate(text).protocol == ("h2" if {"protocol"} <= set(text) else "h1")
