"""TCP mode: a dial, bytes both ways, and every end of every phase."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from lbproxy.dataplane.tcp.session import TcpClient
from lbproxy.telemetry.slots import TRAFFIC
from tests.support.collector import without_collector
from tests.support.fake_transport import FakeLb, Peer

TIMEOUTS = "timeouts: {connect: 1s, write: 4s, tunnel: 5s, half_closed: 2s}"
CONFIG = f"""
access_log: {{path: /dev/null}}
listeners: [{{name: raw, bind: "127.0.0.1:5000", mode: tcp, pool: app}}]
pools:
  app: {{servers: ["127.0.0.1:9001", "127.0.0.1:9002"], strategy: round_robin, health_check: off, {TIMEOUTS}}}
"""
LIMITED = CONFIG.replace("mode: tcp", "mode: tcp, limits: {connections_per_ip: 1}")


def joined(lb: FakeLb) -> tuple[Peer, Peer]:
    client = lb.connect()
    return client, lb.accept()


def test_bytes_go_both_ways_unchanged_and_are_counted() -> None:
    with FakeLb(CONFIG) as lb:
        client, server = joined(lb)
        client.send(b"\x00GET / HTTP/1.1\r\n\r\n")
        assert server.got() == b"\x00GET / HTTP/1.1\r\n\r\n"
        server.send(b"\xffhello")
        assert client.got() == b"\xffhello"
        assert lb.inflight == 1
        client.fin()
        server.fin()
        assert lb.inflight == 0
        entry = lb.log[0]
        assert (entry["end"], entry["status"], entry["method"], entry["target"]) == ("ok", None, None, None)
        assert (entry["bytes_in"], entry["bytes_out"], entry["attempts"]) == (19, 6, 1)
        traffic = lb.listener.runtime.routes[0].traffic
        assert traffic[TRAFFIC.column("tcp_bytes_total", "in")] == 19
        assert traffic[TRAFFIC.column("tcp_bytes_total", "out")] == 6


def test_what_the_client_sends_during_the_dial_is_kept_in_order() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(b"one ", b"two ")
        server = lb.accept()
        client.send(b"three")
        assert server.got() == b"one two three"


def test_what_is_kept_during_the_dial_is_bounded() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(bytes(60_000), bytes(60_000))
        assert client.transport.is_paused
        client.send(b"end")
        server = lb.accept()
        assert not client.transport.is_paused
        assert len(server.got()) == 120_003


@pytest.mark.parametrize("is_behind_fin", [True, False])
def test_a_client_that_waits_in_the_queue_and_is_not_read_resets(is_behind_fin: bool) -> None:
    """It loses its place, and nothing of it is delivered when a slot becomes free."""
    with FakeLb(CONFIG.replace("strategy: round_robin", "max_inflight: 1, queue: {timeout: 60s}")) as lb:
        holders = [lb.connect() for _ in range(2)]
        servers = [lb.accept() for _ in range(2)]
        waiting = lb.connect()
        waiting.send(bytes(1000) if is_behind_fin else bytes(70_000))
        if is_behind_fin:
            waiting.fin()
        assert lb.pool.n_queued == 1
        waiting.leave_unseen(by_reset=True)
        assert lb.pool.n_queued == 0 and lb.ends == ["client_abort"]
        holders[0].fin()
        servers[0].fin()
        assert not lb.loop.dials and lb.of_pool("client_aborts_total", "queued") == 1


def test_each_side_s_fin_is_passed_on_and_the_other_direction_goes_on() -> None:
    with FakeLb(CONFIG) as lb:
        client, server = joined(lb)
        client.send(b"question")
        client.fin()
        assert server.saw_fin and client.is_open and server.is_open
        server.send(b"answer")
        server.fin()
        assert client.got() == b"answer"
        assert not client.saw_reset and not server.saw_reset
        assert lb.ends == ["ok"]
    with FakeLb(CONFIG) as lb:
        client, server = joined(lb)
        server.send(b"banner")
        server.fin()
        assert client.saw_fin and client.is_open
        client.send(b"bye")
        assert server.got() == b"bye"
        client.fin()
        assert lb.ends == ["ok"]


def test_a_client_that_shut_down_writing_during_the_dial_is_served() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(b"question")
        client.fin()
        server = lb.accept()
        assert server.got() == b"question" and server.saw_fin
        server.send(b"answer")
        server.fin()
        assert client.got() == b"answer" and lb.ends == ["ok"]


def test_a_reset_of_one_side_resets_the_other() -> None:
    with FakeLb(CONFIG) as lb:
        client, server = joined(lb)
        client.reset()
        assert server.saw_reset and lb.ends == ["client_abort"]
        assert lb.of_pool("client_aborts_total", "tunnel") == 1
    with FakeLb(CONFIG) as lb:
        client, server = joined(lb)
        server.reset()
        assert client.saw_reset and lb.ends == ["reset"]
        assert lb.of_servers("upstream_errors_total", "reset") == 1


def test_a_client_that_leaves_during_the_dial() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.reset()
        assert not lb.loop.dials and lb.ends == ["client_abort"]
        assert lb.of_pool("client_aborts_total", "connecting") == 1


def test_a_client_that_leaves_in_the_turn_of_the_connect() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        server = lb.accept(turns=False)
        client.reset()
        assert not server.is_open and lb.inflight == 0 and len(lb.log) == 1


def test_a_server_that_is_lost_in_the_turn_of_the_connect() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(b"question")
        lb.accept(turns=False).reset()
        assert client.saw_reset and lb.inflight == 0 and len(lb.log) == 1


def test_what_the_client_said_arrives_although_both_have_ended_when_the_connection_is_there() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(b"last words")
        client.fin()
        server = lb.accept(turns=False)
        server.send(b"banner", turns=False)
        server.fin()
        assert (server.got(), client.got()) == (b"last words", b"banner")
        assert server.saw_fin and client.saw_fin and lb.ends == ["ok"]


def leaves_clean(client: Peer, server: Peer) -> None:
    client.send(b"x")
    client.fin()
    server.fin()


def leaves_with_rst(client: Peer, server: Peer) -> None:
    client.send(b"x")
    client.reset()


def loses_its_server(client: Peer, server: Peer) -> None:
    server.reset()


@pytest.mark.parametrize("end", [leaves_clean, leaves_with_rst, loses_its_server])
def test_a_connection_that_is_over_needs_no_collector(end: Callable[[Peer, Peer], None]) -> None:
    with FakeLb(CONFIG) as lb, without_collector() as gone:
        client, server = joined(lb)
        protocol = client.transport.protocol
        assert isinstance(protocol, TcpClient)
        gone.watch(protocol.relay)
        gone.watch(protocol, server.transport.protocol)
        del protocol
        end(client, server)
        assert len(lb.log) == 1


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.EHOSTUNREACH])
def test_nor_does_one_whose_server_never_was_there(number: int) -> None:
    with FakeLb(CONFIG) as lb, without_collector() as gone:
        client = lb.connect()
        protocol = client.transport.protocol
        assert isinstance(protocol, TcpClient)
        gone.watch(protocol, protocol.relay, protocol.relay.server)
        del protocol
        while lb.loop.dials:
            lb.refuse(number)
        assert client.saw_reset


def test_a_failed_dial_is_tried_at_the_other_server() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        client.send(b"question")
        first = lb.loop.dials[0].address
        lb.refuse()
        assert lb.loop.dials[0].address != first
        server = lb.accept()
        assert server.got() == b"question"
        assert lb.of_pool("retries_total", "connect", "success") == 1
        client.fin()
        server.fin()
        assert lb.log[0]["attempts"] == 2
        tries = [(item["server"], item["reason"]) for item in lb.log[0]["tries"]]
        assert tries == [("127.0.0.1:9001", "connect_refused"), ("127.0.0.1:9002", "ok")]
        client, server = joined(lb)
        client.fin()
        server.fin()
        assert "tries" not in lb.log[1], "there was one attempt only"


def test_when_every_dial_fails_the_client_is_reset() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        for _ in range(3):
            lb.refuse(errno.EHOSTUNREACH)
        assert client.saw_reset and lb.ends == ["connect_unreachable"]
        assert lb.of_servers("upstream_errors_total", "connect_unreachable") == 3
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        for _ in range(2):
            lb.refuse()
        assert client.saw_reset and lb.ends == ["no_server"]
        assert [item["reason"] for item in lb.log[0]["tries"]] == ["connect_refused"] * 2
        assert lb.of_listener("rejected_total", "no_server") == 1


def test_a_dial_that_hangs_is_given_up_and_tried_elsewhere() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        lb.advance(1.3)
        assert len(lb.loop.dials) == 1
        assert lb.of_servers("upstream_connects_total", "timeout") == 1
        server = lb.accept()
        client.send(b"x")
        assert server.got() == b"x"


def test_the_tunnel_time_out_counts_from_the_last_byte_of_either_side() -> None:
    with FakeLb(CONFIG) as lb:
        client, server = joined(lb)
        for peer in (client, server, client):
            lb.advance(4.0)
            peer.send(b"x")
        lb.advance(4.5)
        assert client.is_open
        lb.advance(1.0)
        assert client.saw_reset and server.saw_reset and lb.ends == ["tunnel_timeout"]


def test_half_closed_is_bounded_by_its_own_time_out() -> None:
    with FakeLb(CONFIG) as lb:
        client, server = joined(lb)
        client.fin()
        lb.advance(1.8)
        assert server.is_open
        lb.advance(0.5)
        assert client.saw_reset and server.saw_reset


def test_back_pressure_goes_through() -> None:
    with FakeLb(CONFIG) as lb:
        client, server = joined(lb)
        server.stop_reading()
        assert client.transport.is_paused and not server.transport.is_paused
        client.send(b"later")
        assert server.got() == b""
        server.read_again()
        assert server.got() == b"later"


@pytest.mark.parametrize(("stuck", "word"), [(0, "client_write_timeout"), (1, "upstream_write_timeout")])
def test_a_side_that_does_not_read_is_given_up(stuck: int, word: str) -> None:
    with FakeLb(CONFIG.replace("tunnel: 5s", "tunnel: 50s")) as lb:
        peers = joined(lb)
        peers[stuck].stop_reading()
        lb.advance(3.0)
        peers[stuck].transport.unsent -= 1  # progress
        lb.advance(3.0)
        assert peers[0].is_open
        lb.advance(1.5)
        assert peers[0].saw_reset and peers[1].saw_reset
        assert lb.ends == [word]


def test_too_many_connections_of_an_address() -> None:
    with FakeLb(LIMITED) as lb:
        first = lb.connect()
        second = lb.connect()
        assert second.saw_reset and lb.ends == ["max_per_ip"]
        assert lb.of_listener("rejected_total", "max_per_ip") == 1
        server = lb.accept()
        first.send(b"x")
        assert server.got() == b"x"


def test_shutting_down_resets_both() -> None:
    with FakeLb(CONFIG) as lb:
        client, server = joined(lb)
        for item in list(lb.services.swept):
            item.begin_drain(lb.clock())
        lb.advance(2.0)
        assert client.is_open
        for item in list(lb.services.swept):
            item.shut_down()
        lb.loop.run()
        assert client.saw_reset and server.saw_reset
        assert lb.services.n_cut == 1 and lb.ends == ["shutdown"]


def test_maintenance_ends_a_connection_when_its_time_is_over() -> None:
    with FakeLb(CONFIG) as lb:
        client, server = joined(lb)
        lb.runtimes[0].server.cut_at = lb.clock() + 1.0
        lb.advance(0.9)
        assert server.is_open
        lb.advance(0.5)
        assert server.saw_reset and client.saw_reset
        assert lb.ends == ["maintenance"] and lb.of_servers("upstream_errors_total", "maintenance") == 1


def test_maintenance_has_one_that_is_being_dialled_go_elsewhere() -> None:
    with FakeLb(CONFIG) as lb:
        client = lb.connect()
        lb.runtimes[0].server.cut_at = lb.clock()
        lb.advance(0.5)
        server = lb.accept()
        client.send(b"hello")
        assert server.got() == b"hello" and lb.log == []
        assert lb.runtimes[1].server.inflight == 1
