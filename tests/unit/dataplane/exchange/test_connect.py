"""Requests of extended CONNECT as exchanges; what their clients see is in client/test_http2_tunnel.py."""

from __future__ import annotations

import pytest

from tests.support.fake_transport import GET, FakeLb, ok, status_of
from tests.support.websocket_h2 import Connecting

ONE = """
access_log: {path: /dev/null}
listeners: [{name: web, bind: "127.0.0.1:5000", pool: app}]
pools: {app: {servers: ["127.0.0.1:9001"], health_check: off, retry: {attempts: 0}}}
"""


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_server_that_does_not_switch_is_not_blamed_and_keeps_a_whole_answer_s_connection(is_whole: bool) -> None:
    with FakeLb(ONE) as lb:
        client = Connecting(lb)
        number = client.connect()
        server = lb.accept()
        server.got()
        server.send(ok(b"0123456789") if is_whole else ok(b"0123456789")[:-5])
        client.carry()
        assert client.answer(number).status == 502 and lb.ends == ["no_websocket"]
        assert server.saw_reset is not is_whole
        assert lb.of_servers("upstream_errors_total", "bad_response") == 1
        if is_whole:  # the next request may have it
            other = lb.connect()
            other.send(GET)
            assert server.got().startswith(b"GET /a")
            server.send(ok())
            assert status_of(other.got()) == 200


def test_an_answer_that_is_none_of_a_tunnel_may_be_tried_again() -> None:
    text = ONE.replace('["127.0.0.1:9001"]', '["127.0.0.1:9001", "127.0.0.1:9002"]').replace(
        "attempts: 0", "status: [503]"
    )
    with FakeLb(text) as lb:
        client = Connecting(lb)
        number = client.connect()
        lb.accept().send(ok(status="503 Busy"))
        lb.accept().send(ok(status="404 Not Found"))
        client.carry()
        assert client.answer(number).status == 404 and lb.log[0]["attempts"] == 2
