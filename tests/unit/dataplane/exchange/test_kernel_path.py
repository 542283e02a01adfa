"""Large bodies that are left to the kernel: what is around them stays in order, whatever happens to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from lbproxy.dataplane.client.http1 import Http1Connection
from lbproxy.dataplane.exchange.attempt import Attempt
from lbproxy.dataplane.exchange.kernel_path import SPLICE_FROM, spliceable
from lbproxy.dataplane.net.bulk import BulkReader
from lbproxy.dataplane.net.splice import PipePool
from lbproxy.dataplane.server.upstream import UpstreamConnection
from lbproxy.protocol.body import ChunkedReader, LengthReader
from lbproxy.telemetry.slots import PROCESS
from tests.support.collector import without_collector
from tests.support.fake_flow import FakeKernel
from tests.support.fake_transport import GET, FakeLb, Peer, ok, status_of

CONFIG = """
access_log: {path: /dev/null}
listeners: [{name: web, bind: "127.0.0.1:5000", pool: app, timeouts: {request_body: 3s, write: 5s}}]
pools:
  app:
    servers: ["127.0.0.1:9001"]
    health_check: off
    circuit_breaker: off
    retry: {body_bytes: 100KiB}
    timeouts: {read: 3s, write: 5s, response_head: 100s}
"""
BODY = 1 << 20
FIRST = 150_000  # more than can be repeated
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY
POST = b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % BODY


class Setting:
    """A daemon with pipes, and one client of it."""

    def __init__(self, lb: FakeLb, kernel: FakeKernel) -> None:
        lb.services.pipes = kernel
        self.lb = lb
        self.kernel = kernel
        self.client = lb.connect()

    def download(self) -> Peer:
        """A response is spliced from its 150,001st byte on; the server's side."""
        server = self.lb.exchange(self.client, GET)
        server.send(HEAD + bytes(FIRST))
        assert self.kernel.flow.left == BODY - FIRST
        return server

    def upload(self) -> Peer:
        """A request is spliced likewise."""
        server = self.lb.exchange(self.client, POST)
        self.client.send(bytes(FIRST))
        assert self.kernel.flow.left == BODY - FIRST
        return server


@pytest.fixture
def web() -> Iterator[Setting]:
    kernel = FakeKernel()
    with FakeLb(CONFIG) as lb:
        yield Setting(lb, kernel)


def test_which_bodies_are_worth_it() -> None:
    with FakeLb(CONFIG) as lb:
        transport, pipes = lb.connect().transport, PipePool(1)
        large = LengthReader(SPLICE_FROM)
        assert spliceable(large, pipes, transport, transport) is large
        assert spliceable(LengthReader(SPLICE_FROM - 1), pipes, transport, transport) is None
        assert spliceable(ChunkedReader(), pipes, transport, transport) is None
        assert spliceable(None, pipes, transport, transport) is None
        assert spliceable(large, PipePool(), transport, transport) is None
        assert spliceable(large, pipes, transport, None) is None
        transport._info["ssl_object"] = object()
        assert spliceable(large, pipes, transport, transport) is None


# --- responses ---


def test_a_response_to_its_last_byte_and_the_next_one(web: Setting) -> None:
    server = web.download()
    assert web.client.got().endswith(bytes(FIRST)) and server.transport.is_paused
    web.kernel.flow.moves(BODY - FIRST - 1)
    web.kernel.flow.moves(1)
    assert web.kernel.flow.is_closed and not server.transport.is_paused
    assert web.lb.n_idle == 1 and web.lb.inflight == 0
    assert (web.lb.log[-1]["bytes_out"], web.lb.log[-1]["end"]) == (BODY, "ok")
    web.client.send(GET)
    server.send(ok(b"next"))
    assert web.client.got().endswith(b"next")


def test_bytes_behind_a_response_close_the_connection(web: Setting) -> None:
    server = web.download()
    server.transport.receive(b"HTTP/1.1 200 OK\r\n")  # the kernel has them
    web.kernel.flow.moves(BODY - FIRST)
    web.lb.loop.run()
    assert web.lb.of_servers("upstream_errors_total", "extra_data") == 1
    assert not server.is_open and web.lb.n_idle == 0 and web.client.is_open


def test_what_the_client_has_not_taken_yet_goes_first(web: Setting) -> None:
    server = web.lb.exchange(web.client, GET)
    web.client.transport.unsent = 100
    server.send(HEAD + bytes(FIRST))
    assert not web.kernel.flows and server.transport.is_paused
    web.client.read_again()
    assert web.kernel.flow.left == BODY - FIRST and server.transport.is_paused
    web.kernel.flow.moves(BODY - FIRST)
    assert web.lb.ends == ["ok"]


def test_without_a_pipe_the_response_is_copied(web: Setting) -> None:
    web.kernel.is_out_of_pipes = True
    server = web.lb.exchange(web.client, GET)
    server.send(HEAD + bytes(FIRST))
    assert not server.transport.is_paused
    web.lb.services.pipes.limit = 0  # as the real pool does until the next sweep
    server.send(bytes(BODY - FIRST))
    assert len(web.client.got()) > BODY and web.lb.ends == ["ok"]


def test_a_response_that_ends_too_soon(web: Setting) -> None:
    server = web.download()
    web.kernel.flow.moves(1000)
    server.transport.receive(None)
    web.kernel.flow.ends()
    web.lb.loop.run()
    assert web.client.saw_reset
    assert (web.lb.log[-1]["end"], web.lb.log[-1]["bytes_out"]) == ("truncated_body", FIRST + 1000)


def test_a_server_that_resets_inside_a_response(web: Setting) -> None:
    server = web.download()
    web.kernel.flow.fails(at_source=True)
    web.lb.loop.run()
    assert web.client.saw_reset and not server.is_open and web.lb.ends == ["truncated_body"]


def test_a_client_that_resets_inside_a_response(web: Setting) -> None:
    server = web.download()
    web.kernel.flow.fails(at_source=False)
    web.lb.loop.run()
    assert server.saw_reset and web.lb.ends == ["client_abort"]


@pytest.mark.parametrize("how", ["fin", "reset"])
def test_a_client_that_leaves_is_seen_by_its_transport(web: Setting, how: str) -> None:
    server = web.download()
    getattr(web.client, how)(turns=False)
    assert web.kernel.flow.is_closed, "in the same turn, or its duplicates keep the connections open"
    web.lb.loop.run()
    assert server.saw_reset and web.lb.ends == ["client_abort"]


def test_time_outs_of_a_response(web: Setting) -> None:
    web.download()
    web.kernel.flow.moves(1000, pending=500)
    assert sum(item.buffered_bytes() for item in web.lb.services.swept) == 500
    web.lb.advance(4.0)  # more than `read`, but it is the client that is waited for
    web.kernel.flow.moves(0, pending=400)
    web.lb.advance(4.0)
    assert web.lb.ends == []
    web.kernel.flow.moves(0)
    web.lb.advance(2.5)
    web.kernel.flow.moves(1)
    web.lb.advance(2.5)
    assert web.lb.ends == []
    web.lb.advance(1.0)
    assert web.lb.ends == ["idle_timeout"] and web.kernel.flow.is_closed and web.client.saw_reset


def test_a_client_that_takes_nothing(web: Setting) -> None:
    server = web.download()
    web.kernel.flow.moves(1000, pending=500)
    web.lb.advance(5.5)
    assert web.lb.ends == ["client_write_timeout"] and web.kernel.flow.is_closed and server.saw_reset


def test_a_defect_in_the_middle_shows_as_a_cut(web: Setting) -> None:
    web.download()
    web.kernel.flow.close()
    web.kernel.flow.owner.flow_crashed(ZeroDivisionError("on purpose"))
    assert web.client.saw_reset and web.lb.ends == ["internal_error"]
    column = PROCESS.column("internal_errors_total")
    assert web.lb.services.row[column] == 1
    web.lb.services.row[column] = 0


# --- requests ---


def test_a_request_to_its_last_byte_and_the_next_one(web: Setting) -> None:
    server = web.upload()
    assert server.got().endswith(bytes(FIRST)) and web.client.transport.is_paused
    web.client.transport.receive(GET)  # pipelined: it stays in the kernel
    web.kernel.flow.moves(BODY - FIRST)
    web.lb.loop.run()
    assert not web.client.transport.is_paused and web.kernel.flow.is_closed
    assert server.got() == b"", "the next request waits for the answer"
    server.send(ok(b"done"))
    assert web.client.got().endswith(b"done")
    assert server.got().startswith(b"GET /a ")
    server.send(ok(b"next"))
    assert web.client.got().endswith(b"next")
    assert (web.lb.log[0]["bytes_in"], web.lb.log[0]["end"]) == (BODY, "ok")


def test_a_request_that_may_be_repeated_is_kept_and_not_spliced(web: Setting) -> None:
    server = web.lb.exchange(web.client, POST)
    web.client.send(bytes(90_000))
    assert not web.kernel.flows
    web.client.send(bytes(60_000))
    assert web.kernel.flow.left == BODY - FIRST
    web.kernel.flow.moves(BODY - FIRST)
    server.send(ok())
    assert web.lb.ends == ["ok"]


def test_what_the_server_has_not_taken_yet_goes_first(web: Setting) -> None:
    server = web.lb.exchange(web.client, POST)
    server.transport.unsent = 100
    web.client.send(bytes(FIRST))
    assert not web.kernel.flows and web.client.transport.is_paused
    server.read_again()
    assert web.kernel.flow.left == BODY - FIRST and web.client.transport.is_paused
    web.kernel.flow.moves(BODY - FIRST)
    server.send(ok())
    assert web.lb.ends == ["ok"]


def test_without_a_pipe_the_request_is_copied(web: Setting) -> None:
    web.kernel.is_out_of_pipes = True
    server = web.lb.exchange(web.client, POST)
    web.client.send(bytes(FIRST))
    assert not web.client.transport.is_paused
    web.lb.services.pipes.limit = 0
    web.client.send(bytes(BODY - FIRST))
    assert len(server.got()) > BODY
    server.send(ok())
    assert web.lb.ends == ["ok"]


def test_an_early_answer_ends_the_upload(web: Setting) -> None:
    server = web.upload()
    server.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig", turns=False)
    assert web.kernel.flow.is_closed
    web.lb.loop.run()
    assert status_of(web.client.got()) == 413 and server.saw_reset
    assert not web.client.transport.is_paused, "the rest is read, or the answer is lost"


def test_a_server_that_resets_inside_a_request_and_its_answer_is_in_the_kernel(web: Setting) -> None:
    web.upload()
    web.kernel.flow.fails(at_source=False)
    web.lb.loop.run()
    assert status_of(web.client.got()) == 502 and web.lb.log[0]["attempts"] == 1


def test_a_client_that_resets_inside_a_request(web: Setting) -> None:
    server = web.upload()
    web.kernel.flow.fails(at_source=True)
    web.lb.loop.run()
    assert server.saw_reset and web.lb.ends == ["client_abort"]


def test_a_client_that_ends_inside_a_request(web: Setting) -> None:
    server = web.upload()
    web.client.transport.receive(None)
    web.kernel.flow.ends()
    web.lb.loop.run()
    assert server.saw_reset and web.lb.ends == ["client_abort"]


def test_a_client_that_leaves_behind_back_pressure(web: Setting) -> None:
    server = web.upload()
    web.kernel.flow.moves(1000, pending=1000)
    web.client.leave_unseen()
    assert web.kernel.flow.is_closed and server.saw_reset and web.lb.ends == ["client_abort"]


def test_time_outs_of_a_request(web: Setting) -> None:
    web.upload()
    web.kernel.flow.moves(1000, pending=500)
    assert sum(item.buffered_bytes() for item in web.lb.services.swept) == 500
    web.lb.advance(4.0)  # more than `request_body`, but it is the server that is waited for
    web.kernel.flow.moves(0)
    web.lb.advance(2.5)
    web.kernel.flow.moves(1)
    web.lb.advance(2.5)
    assert web.lb.ends == []
    web.lb.advance(1.0)
    assert web.lb.ends == ["body_timeout"] and web.kernel.flow.is_closed
    assert status_of(web.client.got()) == 408


def test_a_server_that_takes_nothing(web: Setting) -> None:
    server = web.upload()
    web.kernel.flow.moves(1000, pending=500)
    web.lb.advance(5.5)
    assert web.lb.ends == ["upstream_write_timeout"] and web.kernel.flow.is_closed and server.saw_reset


def test_both_directions_at_once(web: Setting) -> None:
    server = web.upload()
    upload = web.kernel.flow
    server.send(HEAD + bytes(FIRST))
    download = web.kernel.flow
    assert upload is not download and server.transport.is_paused and web.client.transport.is_paused
    upload.moves(BODY - FIRST)
    download.moves(BODY - FIRST)
    web.lb.loop.run()
    assert (web.lb.log[0]["bytes_in"], web.lb.log[0]["bytes_out"], web.lb.ends) == (BODY, BODY, ["ok"])
    assert not web.client.transport.is_paused


def test_shutting_down_cuts_what_is_spliced(web: Setting) -> None:
    server = web.download()
    for item in list(web.lb.services.swept):
        item.shut_down()
    assert web.kernel.flow.is_closed
    web.lb.loop.run()
    assert web.client.saw_reset and server.saw_reset and web.lb.ends == ["shutdown"]


# --- afterwards ---


def completes(web: Setting, server: Peer) -> None:
    web.kernel.flow.moves(BODY - FIRST)
    web.client.reset()
    server.reset()


def client_leaves(web: Setting, server: Peer) -> None:
    web.kernel.flow.moves(1000, pending=500)
    web.client.reset()


def server_is_lost(web: Setting, server: Peer) -> None:
    web.kernel.flow.moves(1000)
    web.kernel.flow.fails(at_source=True)
    web.lb.loop.run()


@pytest.mark.parametrize("end", [completes, client_leaves, server_is_lost])
def test_no_part_of_a_spliced_exchange_waits_for_the_collector(
    web: Setting, end: Callable[[Setting, Peer], None]
) -> None:
    with without_collector() as gone:
        server = web.download()
        client_side, connection = web.client.transport.protocol, server.transport.protocol
        assert isinstance(client_side, Http1Connection) and isinstance(connection, UpstreamConnection)
        attempt = connection.sink
        assert isinstance(attempt, Attempt) and attempt.kernel is not None
        gone.watch(client_side, connection, attempt, attempt.owner, attempt.kernel, attempt.kernel.download)
        del client_side, connection, attempt
        end(web, server)
        web.lb.loop.run()
        web.kernel.flows.clear()


def test_nor_does_a_reader_of_large_bodies(web: Setting) -> None:
    with without_collector() as gone:
        web.client.send(b"POST /up HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n80000\r\n")
        server = web.lb.accept()
        web.client.send(bytes(FIRST), bytes(1000))
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n80000\r\n" + bytes(FIRST))
        for peer in (web.client, server):
            reader = peer.transport.protocol
            assert isinstance(reader, BulkReader)
            gone.watch(reader, reader._owner)
        del reader
        web.client.reset()
