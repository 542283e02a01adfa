"""What a request becomes after 101: a stream both ways, one slot at its server, one line in the log."""

from __future__ import annotations

import pytest

from tests.support.fake_transport import SWITCHING, UPGRADE, FakeLb, Peer, status_of

ONE = """
access_log: {path: /dev/null}
listeners: [{name: web, bind: "127.0.0.1:5000", pool: app}]
pools: {app: {servers: ["127.0.0.1:9001"], health_check: off, timeouts: {tunnel: 5s, half_closed: 2s}}}
"""


def test_a_tunnel_carries_what_was_read_ahead_on_both_sides() -> None:
    with FakeLb(ONE) as lb:
        client = lb.connect()
        client.send(UPGRADE + b"ping")
        server = lb.accept()
        assert b"Connection: Upgrade\r\nUpgrade: websocket\r\n" in server.got()
        server.send(SWITCHING + b"pong")
        assert server.got() == b"ping"
        answer = client.got()
        assert status_of(answer) == 101 and answer.endswith(b"\r\n\r\npong")
        client.send(b"1")
        server.send(b"2")
        assert (server.got(), client.got()) == (b"1", b"2")
        client.fin()
        assert server.saw_fin and server.is_open
        server.send(b"rest")
        assert client.got() == b"rest"
        server.fin()
        assert lb.ends == ["ok"]
        assert not client.is_open and not server.is_open and not client.saw_reset


@pytest.mark.parametrize("ahead", [b"", b"ping"])
def test_a_client_that_had_ended_before_its_101_has_ended_in_the_tunnel(ahead: bytes) -> None:
    with FakeLb(ONE.replace('bind: "127.0.0.1:5000"', 'bind: "127.0.0.1:5000", half_close: answer')) as lb:
        client = lb.connect()
        client.send(UPGRADE + ahead)
        server = lb.accept()
        client.fin()
        server.send(SWITCHING)
        server.got()
        assert server.saw_fin and server.is_open
        server.send(b"rest")
        server.fin()
        assert client.got().endswith(b"rest")
        assert lb.ends == ["ok"] and not client.saw_reset


def test_what_follows_an_upgrade_with_connection_close_is_not_lost() -> None:
    with FakeLb(ONE) as lb:
        client = lb.connect()
        client.send(UPGRADE.replace(b"Connection: ", b"Connection: close, ") + b"ping")
        server = lb.accept()
        assert b"Upgrade: websocket" in server.got()
        server.send(SWITCHING)
        assert server.got() == b"ping"
        client.reset()


def switched(lb: FakeLb) -> tuple[Peer, Peer]:
    client = lb.connect()
    server = lb.exchange(client, UPGRADE)
    server.send(SWITCHING)
    return client, server


def test_it_has_its_slot_until_the_end_and_counts_its_bytes() -> None:
    with FakeLb(ONE) as lb:
        client, server = switched(lb)
        client.send(b"ping")
        server.send(b"answer")
        lb.advance(1.0)
        assert lb.inflight == 1 and lb.ends == []
        client.fin()
        server.fin()
        assert lb.inflight == 0 and lb.runtimes[0].n_connections == 0
        [entry] = lb.log
        assert (entry["status"], entry["end"], entry["bytes_in"], entry["bytes_out"]) == (101, "ok", 4, 6)
        assert lb.of_servers("server_requests_total", "1xx") == 1


@pytest.mark.parametrize(("who", "word", "aborts"), [("client", "client_abort", 1), ("server", "reset", 0)])
def test_who_resets_it_is_told_from_the_other(who: str, word: str, aborts: int) -> None:
    with FakeLb(ONE) as lb:
        client, server = switched(lb)
        (client if who == "client" else server).reset()
        assert lb.ends == [word] and lb.of_pool("client_aborts_total", "tunnel") == aborts
        assert (server if who == "client" else client).saw_reset and lb.runtimes[0].server.errors == 0


def test_maintenance_ends_a_tunnel_when_its_time_is_over() -> None:
    with FakeLb(ONE) as lb:
        client, server = switched(lb)
        lb.runtimes[0].server.cut_at = lb.clock() + 1.0
        lb.advance(0.9)
        assert server.is_open
        lb.advance(0.5)
        assert server.saw_reset and client.saw_reset
        assert lb.ends == ["maintenance"] and lb.of_servers("upstream_errors_total", "maintenance") == 1
