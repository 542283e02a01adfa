"""What is left of a connection that is closed is seen off, and not for ever."""

from __future__ import annotations

from typing import Any, cast

import pytest

from lbproxy.dataplane.closing import close
from tests.support.fake_transport import FakeLb, FakeTransport, Peer

WRITE_S = 5.0


class Slow(FakeTransport):
    """Closes when everything has left, as transports do."""

    def close(self) -> None:
        self.calls.append("close")
        if not self.unsent:
            super().close()


def slow(lb: FakeLb, unsent: int) -> tuple[Slow, Peer]:
    lb.loop.run()
    app = cast(Any, type("App", (), {"connection_lost": lambda self, exc: None})())
    transport = Slow(lb.loop, app, ("192.0.2.7", 1), ("127.0.0.1", 5000))
    transport.unsent = unsent
    return transport, Peer(lb.loop, transport)


def ours(lb: FakeLb) -> list[Any]:
    return [item for item in lb.services.swept if type(item).__name__ == "Closing"]


def test_nobody_watches_where_nothing_is_left() -> None:
    with FakeLb() as lb:
        transport, peer = slow(lb, 0)
        close(lb.services, cast(Any, transport), WRITE_S)
        lb.loop.run()
        assert not ours(lb) and not peer.is_open and not peer.saw_reset


def test_it_is_watched_while_it_makes_progress_and_counted_as_buffered() -> None:
    with FakeLb() as lb:
        transport, peer = slow(lb, 5000)
        close(lb.services, cast(Any, transport), WRITE_S)
        for left in (4000, 3000, 2000):
            lb.advance(WRITE_S - 1)
            transport.unsent = left
            assert [item.buffered_bytes() for item in ours(lb)] == [left]
            lb.advance(1.0)
        assert peer.is_open
        transport.unsent = 0
        lb.advance(1.0)
        assert not ours(lb) and not peer.saw_reset
        transport.abort()


def test_a_peer_that_takes_nothing_is_reset() -> None:
    with FakeLb() as lb:
        transport, peer = slow(lb, 5000)
        close(lb.services, cast(Any, transport), WRITE_S)
        lb.advance(WRITE_S - 1)
        assert peer.is_open
        lb.advance(2.0)
        assert peer.saw_reset and not ours(lb)


@pytest.mark.parametrize("unsent", [0, 5000])
def test_at_the_end_of_grace_it_is_cut_and_counted_unless_it_has_just_left(unsent: int) -> None:
    with FakeLb() as lb:
        transport, peer = slow(lb, 5000)
        close(lb.services, cast(Any, transport), WRITE_S)
        (closing,) = ours(lb)
        closing.begin_drain(lb.clock())
        transport.unsent = unsent
        closing.shut_down()
        lb.loop.run()
        assert lb.services.n_cut == bool(unsent) and not ours(lb) and not peer.is_open
