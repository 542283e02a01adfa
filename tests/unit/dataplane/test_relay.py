"""A relay by itself: two transports, and one report of its end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lbproxy.dataplane.relay import HIGH_WATER, Relay, RelayEnd
from lbproxy.errors import Side
from tests.support.fake_transport import FakeLb, FakeTransport, Peer


class Pair:
    """A relay between a client and a server that are connected already."""

    def __init__(self, lb: FakeLb, tunnel_s: float = 100.0) -> None:
        self.lb = lb
        self.ends: list[tuple[str, Side | None]] = []
        self.relay = Relay(
            lb.services,
            tunnel_s=tunnel_s,
            half_closed_s=2.0,
            write_s=5.0,
            on_done=lambda relay, end, side: self.ends.append((end, side)),
        )
        client, server = RelayEnd(self.relay), RelayEnd(self.relay)
        down = FakeTransport(lb.loop, client, ("192.0.2.7", 1), ("127.0.0.1", 5000))
        up = FakeTransport(lb.loop, server, ("127.0.0.1", 9001), ("127.0.0.1", 2))
        self.client, self.server = Peer(lb.loop, down), Peer(lb.loop, up)
        self.relay.join(client, down, server, up)


@pytest.fixture
def pair() -> Iterator[Pair]:
    with FakeLb() as lb:
        pair = Pair(lb)
        try:
            yield pair
        finally:
            pair.relay.fail("test", None)
            lb.loop.run()


def test_the_end_is_told_once(pair: Pair) -> None:
    pair.client.reset()
    pair.server.reset()
    pair.relay.fail("late", None)
    pair.relay.shut_down()
    assert pair.ends == [("client_abort", Side.CLIENT)]
    assert pair.relay not in pair.lb.services.swept and pair.lb.services.n_cut == 0


def test_both_fins_in_one_turn(pair: Pair) -> None:
    pair.client.fin(turns=False)
    pair.server.fin(turns=False)
    pair.lb.loop.run()
    assert pair.ends == [("ok", None)]
    assert not pair.client.saw_reset and not pair.server.saw_reset


def test_a_fin_is_passed_on_once(pair: Pair) -> None:
    pair.client.fin()
    pair.relay.direction_ended(pair.relay.client)
    assert pair.server.transport.calls.count("write_eof") == 1


def test_a_clean_loss_before_both_fins_is_an_error(pair: Pair) -> None:
    pair.client.fin()
    pair.server.transport.lose(None)
    pair.lb.loop.run()
    assert pair.ends == [("reset", Side.UPSTREAM)] and pair.client.saw_reset


def test_the_high_water_mark_of_early_bytes() -> None:
    with FakeLb() as lb:
        done: list[str] = []
        relay = Relay(
            lb.services, tunnel_s=9, half_closed_s=9, write_s=9, on_done=lambda relay, end, side: done.append(end)
        )
        client, server = RelayEnd(relay), RelayEnd(relay)
        relay.pair(client, server)
        peer = Peer(lb.loop, FakeTransport(lb.loop, client, None, None))
        client.connection_made(peer.transport)
        peer.send(bytes(HIGH_WATER))
        assert not peer.transport.is_paused
        peer.send(b"x")
        assert peer.transport.is_paused
        other = Peer(lb.loop, FakeTransport(lb.loop, server, None, None))
        server.connection_made(other.transport)
        client.flush_early()
        assert len(other.got()) == HIGH_WATER + 1 and not peer.transport.is_paused
        relay.fail("test", None)
        lb.loop.run()
        assert done == ["test"] and peer.saw_reset and other.saw_reset


def test_unsent_bytes_of_both_sides_are_buffered(pair: Pair) -> None:
    pair.client.transport.unsent, pair.server.transport.unsent = 3, 4
    assert pair.relay.buffered_bytes() == 7
    pair.client.reset()
    assert pair.relay.buffered_bytes() == 0


def test_a_write_that_is_stuck_needs_the_whole_time_out_without_progress(pair: Pair) -> None:
    pair.client.stop_reading(unsent=100)
    for _ in range(4):
        pair.lb.advance(4.0)
        pair.client.transport.unsent -= 1
    assert pair.ends == []
    pair.lb.advance(5.5)
    assert pair.ends == [("client_write_timeout", Side.CLIENT)]


def test_bytes_that_leave_slowly_keep_a_tunnel_open() -> None:
    with FakeLb() as lb:
        pair = Pair(lb, tunnel_s=3.0)
        pair.client.stop_reading(unsent=100)
        for _ in range(4):
            lb.advance(2.0)
            pair.client.transport.unsent -= 1
        assert pair.ends == []
        lb.advance(4.0)
        assert pair.ends == [("tunnel_timeout", None)]
