"""Which kinds are warned of; the sentences stand in warned.txt."""

from __future__ import annotations

import pytest

from lbproxy.config.loader import load_text


def warned(pool: str, mode: str = "http") -> list[str]:
    text = f"listeners: [{{bind: ':1', pool: p, mode: {mode}}}]\npools:\n  p: {{{pool}}}\n"
    return [problem.path for problem in load_text(text, "lb.yaml", {}).warnings]


@pytest.mark.parametrize("kind", ["gunicorn-sync", "gunicorn-gthread"])
def test_who_does_not_say_how_many_at_once_is_asked(kind: str) -> None:
    assert warned(f"kind: {kind}, servers: ['a:1']") == ["pools.p.kind"]
    assert warned(f"kind: {kind}, servers: [{{address: 'a:1', max_inflight: 2}}, 'b:1']") == ["pools.p.kind"]


@pytest.mark.parametrize("limit", ["max_inflight: 4", "max_inflight: off"])
def test_who_says_it_is_not(limit: str) -> None:
    assert warned(f"kind: gunicorn-sync, servers: ['a:1'], {limit}") == []


def test_a_limit_of_each_server_will_do() -> None:
    assert warned("kind: gunicorn-gthread, servers: [{address: 'a:1-2', max_inflight: 4}]") == []


@pytest.mark.parametrize("kind", ["uvicorn", "waitress", "triton", "vllm", "tgi"])
def test_the_others_are_known_well_enough(kind: str) -> None:
    assert warned(f"kind: {kind}, servers: ['a:1']") == []


def test_a_kind_is_about_http() -> None:
    assert warned("kind: triton, servers: ['a:8001']", "tcp") == ["pools.p.kind"]
    assert warned("servers: ['a:8001']", "tcp") == []
