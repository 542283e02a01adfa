"""A relay by itself: two transports, and one report of its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from lbproxy.dataplane.exchange.relay import IDLE_S, Relay
from lbproxy.dataplane.exchange.relay_end import (
    BULK_READ,
    HIGH_WATER,
    NOT_SOON,
    SMALL_MOVES,
    SPLICE_FROM,
    RelayEnd,
)
from lbproxy.errors import Side
from lbproxy.telemetry.slots import PROCESS
from tests.support.fake_flow import FakeKernel
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
        self.relay.join(client, cast(Any, down), server, cast(Any, up))


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


@pytest.mark.parametrize("how", ["taken", "not taken", "grace"])
def test_a_relay_is_over_when_both_ends_have_taken_what_they_were_sent(pair: Pair, how: str) -> None:
    """A stop waits for it, it is counted as buffered, and a peer that takes nothing does not keep its connection."""
    pair.client.transport.unsent = 1000
    pair.client.fin(turns=False)
    pair.server.fin(turns=False)
    pair.lb.advance(1.0)
    assert pair.ends == [] and pair.client.saw_fin and pair.relay.buffered_bytes() == 1000
    if how == "taken":
        pair.client.transport.unsent = 0
        pair.lb.advance(1.0)
        assert pair.ends == [("ok", None)] and not pair.client.saw_reset
    elif how == "not taken":
        pair.lb.advance(5.0)
        assert pair.ends == [("client_write_timeout", Side.CLIENT)] and pair.client.saw_reset
    else:
        pair.relay.shut_down()
        pair.lb.loop.run()
        assert pair.lb.services.n_cut == 1 and pair.client.saw_reset
    assert not pair.lb.services.swept


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


def test_an_end_that_sends_before_it_reads_is_not_stuck(pair: Pair) -> None:
    pair.client.stop_reading(unsent=100)
    for _ in range(4):
        pair.lb.advance(4.0)
        pair.client.send(b"more")
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


# --- bulk ---

CHUNK = bytes(64 * 1024)
N_CHUNKS = -(-SPLICE_FROM // len(CHUNK))  # so many prove it


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel()


@pytest.fixture
def bulky(pair: Pair, kernel: FakeKernel) -> Pair:
    """A pair whose server has proved to be bulk."""
    pair.lb.services.pipes = kernel
    pair.server.send(*[CHUNK] * N_CHUNKS)
    assert len(kernel.flows) == 1
    return pair


def test_a_bulk_direction_is_left_to_the_kernel(bulky: Pair, kernel: FakeKernel) -> None:
    assert bulky.client.got() == CHUNK * N_CHUNKS
    assert kernel.flow.n_runs == 1
    assert bulky.server.transport.is_paused and not bulky.client.transport.is_paused
    kernel.flow.moves(1000)
    assert bulky.relay.server.n_received == len(CHUNK) * N_CHUNKS + 1000
    bulky.client.send(b"the other direction goes on")
    assert bulky.server.got() == b"the other direction goes on"


def test_one_small_read_among_large_ones_is_not_bulk(pair: Pair, kernel: FakeKernel) -> None:
    pair.lb.services.pipes = kernel
    for _ in range(3):
        pair.server.send(*[CHUNK] * (N_CHUNKS - 1), b"x")
    assert not kernel.flows


def test_without_pipes_everything_is_copied(pair: Pair, kernel: FakeKernel) -> None:
    pair.server.send(*[CHUNK] * N_CHUNKS * 3)
    assert not kernel.flows and pair.client.got() == CHUNK * N_CHUNKS * 3


def test_when_the_pipe_cannot_be_had_copying_goes_on(pair: Pair, kernel: FakeKernel) -> None:
    pair.lb.services.pipes = kernel
    kernel.is_out_of_pipes = True
    pair.server.send(*[CHUNK] * N_CHUNKS)
    assert not pair.server.transport.is_paused
    kernel.is_out_of_pipes = False
    pair.server.send(*[CHUNK] * N_CHUNKS)
    assert not kernel.flows, "not at once"
    pair.server.send(*[CHUNK] * (NOT_SOON // len(CHUNK) + N_CHUNKS))
    assert len(kernel.flows) == 1


def test_tls_is_copied(pair: Pair, kernel: FakeKernel) -> None:
    pair.lb.services.pipes = kernel
    pair.client.transport._info["ssl_object"] = object()
    pair.server.send(*[CHUNK] * N_CHUNKS * 3)
    assert not kernel.flows and not pair.server.transport.is_paused


def test_what_the_transport_still_holds_goes_first(pair: Pair, kernel: FakeKernel) -> None:
    pair.lb.services.pipes = kernel
    pair.client.transport.unsent = 100
    pair.server.send(*[CHUNK] * N_CHUNKS)
    assert not kernel.flows and pair.server.transport.is_paused
    pair.client.read_again()
    assert len(kernel.flows) == 1 and pair.server.transport.is_paused


def test_bulk_that_is_over_is_copied_again(bulky: Pair, kernel: FakeKernel) -> None:
    for _ in range(SMALL_MOVES - 1):
        kernel.flow.moves(10)
    kernel.flow.moves(BULK_READ)
    for _ in range(SMALL_MOVES - 1):
        kernel.flow.moves(10)
    assert not kernel.flow.is_closed
    kernel.flow.moves(10)
    assert kernel.flow.is_closed and not bulky.server.transport.is_paused
    bulky.client.got()
    bulky.server.send(b"small")
    assert bulky.client.got() == b"small"
    bulky.server.send(*[CHUNK] * N_CHUNKS)
    assert len(kernel.flows) == 2


def test_silence_gives_the_pipe_back_but_not_while_bytes_are_under_way(bulky: Pair, kernel: FakeKernel) -> None:
    kernel.flow.moves(100_000, pending=1)
    bulky.lb.advance(IDLE_S + 0.5)
    assert not kernel.flow.is_closed
    kernel.flow.moves(0)
    bulky.lb.advance(IDLE_S + 0.5)
    assert kernel.flow.is_closed and not bulky.server.transport.is_paused
    assert bulky.ends == []


def test_the_end_of_a_spliced_direction_is_found_by_its_transport(bulky: Pair, kernel: FakeKernel) -> None:
    bulky.server.transport.receive(None)  # its transport does not read
    kernel.flow.ends()
    bulky.lb.loop.run()
    assert bulky.client.saw_fin and bulky.ends == []
    bulky.client.fin()
    assert bulky.ends == [("ok", None)]


@pytest.mark.parametrize(
    ("at_source", "end"), [(True, ("reset", Side.UPSTREAM)), (False, ("client_abort", Side.CLIENT))]
)
def test_an_error_that_the_kernel_tells(
    bulky: Pair, kernel: FakeKernel, at_source: bool, end: tuple[str, Side | None]
) -> None:
    kernel.flow.fails(at_source=at_source)
    bulky.lb.loop.run()
    assert bulky.ends == [end] and bulky.client.saw_reset and bulky.server.saw_reset


def test_a_reset_closes_the_flow_in_the_same_turn(bulky: Pair, kernel: FakeKernel) -> None:
    """Or its duplicates keep the connection open, and the other side is not told."""
    bulky.client.reset(turns=False)
    assert kernel.flow.is_closed
    bulky.lb.loop.run()


def test_a_peer_that_takes_nothing_from_the_pipe_is_given_up(bulky: Pair, kernel: FakeKernel) -> None:
    kernel.flow.moves(100_000, pending=50_000)
    assert bulky.relay.buffered_bytes() == 50_000
    bulky.lb.advance(4.0)
    kernel.flow.moves(0, pending=40_000)
    bulky.lb.advance(4.0)
    assert bulky.ends == []
    bulky.lb.advance(1.5)
    assert bulky.ends == [("client_write_timeout", Side.CLIENT)] and kernel.flow.is_closed


def test_a_reset_behind_back_pressure_is_looked_for(bulky: Pair, kernel: FakeKernel) -> None:
    bulky.server.transport.sock.is_reset = True
    bulky.lb.advance(0.5)
    assert bulky.ends == [], "a side that is read tells it by itself"
    kernel.flow.moves(100_000, pending=50_000)
    bulky.lb.advance(0.5)
    assert bulky.ends == [("reset", Side.UPSTREAM)] and bulky.client.saw_reset


def test_a_defect_ends_the_relay(bulky: Pair, kernel: FakeKernel) -> None:
    kernel.flow.close()
    kernel.flow.owner.flow_crashed(ZeroDivisionError("on purpose"))
    assert bulky.ends == [("internal_error", None)]
    column = PROCESS.column("internal_errors_total")
    assert bulky.lb.services.row[column] == 1
    bulky.lb.services.row[column] = 0
