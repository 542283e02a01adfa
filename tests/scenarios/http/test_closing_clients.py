"""Clients that say `Connection: close`: the whole answer, then a clean end, whatever they send behind that word."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin
from tests.support.waiting import wait_until
from tests.support.wire import Request

SURPLUS = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
SIZES = {"small": 20, "large": 3 << 20}


@dataclass
class Stage:
    lb: LbProxy
    origin: Origin
    may_answer: threading.Event

    def answer(self, request: Request) -> bytes:
        assert self.may_answer.wait(60.0)
        body = b"x" * SIZES[request.target[1:]]
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stages: list[Stage] = []
    with Origin(answer=lambda request: stages[0].answer(request)) as origin:
        config: dict[str, object] = {
            "listeners": [{"name": "main", "bind": "127.0.0.1:0", "pool": "main"}],
            "pools": {"main": {"servers": [origin.address], "health_check": "off"}},
        }
        with LbProxy(config, tmp_path_factory.mktemp("closing")) as lb:
            stages.append(Stage(lb, origin, threading.Event()))
            yield stages[0]
            assert not origin.violations


def ask(what: str) -> bytes:
    return b"POST /%b HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello" % what.encode()


@pytest.mark.parametrize("what", SIZES)
@pytest.mark.parametrize("surplus", ["none", "in the same segment", "before the answer", "CR LF"])
def test_the_answer_comes_whole_and_the_end_is_clean(stage: Stage, what: str, surplus: str) -> None:
    seen = len(stage.origin.requests)
    stage.may_answer.clear()
    with Client(stage.lb.port("main")) as client:
        client.send(ask(what) + (SURPLUS * 100 if surplus == "in the same segment" else b""))
        wait_until(lambda: len(stage.origin.requests) > seen, "the request to come to the server")
        if surplus in ("before the answer", "CR LF"):
            client.send(b"\r\n" if surplus == "CR LF" else SURPLUS * 100)
        stage.may_answer.set()
        reply = client.response()
        assert (reply.status, len(reply.body), reply.is_kept_alive) == (200, SIZES[what], False)
        assert client.wait_end() == "fin"
    stage.lb.check_idle()
    assert len(stage.origin.requests) == seen + 1


@pytest.mark.parametrize("what", SIZES)
def test_nobody_waits_for_a_client_that_has_its_answer(stage: Stage, what: str) -> None:
    """Its own end may stay open for as long as it likes."""
    stage.may_answer.set()
    with Client(stage.lb.port("main")) as client:
        assert client.ask(ask(what)).status == 200
        stage.lb.check_idle()
        assert client.wait_end() == "fin"
