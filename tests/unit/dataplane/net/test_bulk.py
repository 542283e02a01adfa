"""Large bodies: a read is as large as the other side takes, and nothing is lost at either change of reader."""

from __future__ import annotations

import pytest

from lbproxy.dataplane.net import bulk
from tests.support.fake_transport import CONFIG, GET, FakeLb, body_of, ok, post, status_of

ONE = CONFIG.replace(', "127.0.0.1:9002"', "")
BODY = bytes(range(256)) * 2048


def test_a_large_answer_is_read_by_a_bulk_reader_until_its_end() -> None:
    with FakeLb(ONE) as lb:
        client = lb.connect()
        server = lb.exchange(client, GET)
        own = server.transport.protocol
        answer = ok(BODY)
        server.send(answer[: bulk.FROM_BYTES + 1000])
        assert isinstance(server.transport.protocol, bulk.BulkReader)
        server.send(answer[bulk.FROM_BYTES + 1000 :])
        assert server.transport.protocol is own
        assert body_of(client.got()) == BODY


def test_small_answers_are_not() -> None:
    with FakeLb(ONE) as lb:
        client = lb.connect()
        server = lb.exchange(client, GET)
        own = server.transport.protocol
        server.send(ok(b"12345")[:-1])
        assert server.transport.protocol is own
        server.send(b"5")


@pytest.mark.parametrize("end", ["fin", "reset"])
def test_a_loss_in_mid_body_is_seen_through_the_reader(end: str) -> None:
    with FakeLb(ONE) as lb:
        client = lb.connect()
        server = lb.exchange(client, GET)
        server.send(ok(BODY)[:100_000])
        getattr(server, end)()
        assert client.saw_reset and lb.ends == ["truncated_body"]
    with FakeLb(ONE) as lb:
        client = lb.connect()
        client.send(post(BODY)[:40_000], turns=False)
        client.send(BODY[:40_000])
        server = lb.accept()
        getattr(client, end)()
        assert server.saw_reset and lb.ends == ["client_abort"]


def test_a_large_request_that_is_refused_in_mid_body_lingers_like_any_other() -> None:
    config = ONE.replace("pool: app}]", "pool: app, limits: {body_bytes: 100KiB}}]")
    with FakeLb(config) as lb:
        client = lb.connect()
        head = b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        server = lb.exchange(client, head)
        own = client.transport.protocol
        chunk = b"a000\r\n" + bytes(0xA000) + b"\r\n"
        client.send(chunk, chunk)
        assert isinstance(client.transport.protocol, bulk.BulkReader)
        client.send(chunk)
        assert status_of(client.got()) == 413 and server.saw_reset
        assert client.transport.protocol is own
        client.send(chunk, chunk)
        client.fin()
        assert not client.is_open and lb.ends == ["body_too_large"]
