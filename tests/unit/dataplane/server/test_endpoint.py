"""An HTTP/1 server's endpoint: a kept connection, one that stands at once, one that a task opens, or none."""

from __future__ import annotations

import errno

import pytest

from lbproxy.dataplane.exchange.ports import Endpoint
from lbproxy.dataplane.server.endpoint import Dial
from lbproxy.dataplane.server.upstream import UpstreamConnection
from tests.support.asking import Asked, AskingLb, prepared_by
from tests.support.fake_transport import FakeTasks, ok
from tests.unit.dataplane.server.helpers import config


class Asking(AskingLb):
    """Its endpoint, too."""

    def __init__(self, keep_alive: str = "{}") -> None:
        super().__init__(config(keep_alive=keep_alive))
        endpoint = self.runtimes[0].endpoint
        assert isinstance(endpoint, Endpoint)
        self.endpoint = endpoint

    def kept(self) -> UpstreamConnection:
        """A connection that has answered once."""
        asked = self.ask()
        server = self.accept()
        stream = asked.begin(prepared_by(self))
        server.send(ok())
        assert self.n_idle == 1 and isinstance(stream, UpstreamConnection)
        return stream


def test_a_new_connection_is_opened_by_a_task() -> None:
    with Asking() as lb:
        asked = lb.ask()
        assert isinstance(asked.pending, Dial) and asked.heard == []
        lb.clock.now += 0.5
        lb.accept()
        assert asked.heard == [("dialled", 0.5), "opened"] and asked.pending is None and asked.stream is not None
        asked.stream.abort()
        lb.loop.run()


def test_one_that_stands_at_once_needs_no_task() -> None:
    with Asking() as lb:
        lb.services.dialer.at_once = lb.servers  # type: ignore[attr-defined]
        asked = lb.ask()
        assert asked.heard == [("dialled", 0.0), "opened"] and asked.pending is None and asked.stream is not None
        assert lb.of_servers("upstream_connects_total", "ok") == 1
        asked.stream.abort()
        lb.loop.run()


@pytest.mark.parametrize(("wants_fresh", "is_given"), [(False, True), (True, False)])
def test_a_kept_one_is_given_unless_it_must_be_fresh(wants_fresh: bool, is_given: bool) -> None:
    with Asking() as lb:
        kept = lb.kept()
        asked = lb.ask(wants_fresh=wants_fresh)
        assert (asked.heard == ["opened"] and asked.stream is kept) is is_given
        assert (asked.pending is None) is is_given and lb.n_idle == 1 - is_given
        if asked.pending is not None:
            asked.pending.cancel()
        kept.close_idle()
        lb.runtimes[0].idle.discard(kept)
        lb.loop.run()


def test_a_kept_one_that_the_server_has_closed_is_not_given() -> None:
    with Asking() as lb:
        lb.kept()
        lb.servers[0].transport.sock.hang_up()
        asked = lb.ask()
        assert asked.stream is None and asked.pending is not None and not lb.servers[0].is_open
        asked.pending.cancel()
        lb.loop.run()


def test_one_that_has_kept_its_time_is_not_given() -> None:
    with Asking("{idle_timeout: 10s}") as lb:
        kept = lb.kept()
        lb.clock.now += 10.0
        asked = lb.ask()
        assert asked.stream is not kept and asked.pending is not None
        asked.pending.cancel()
        lb.loop.run()


def test_a_dial_that_fails_says_so_later() -> None:
    with Asking() as lb:
        asked = lb.ask()
        assert asked.heard == []
        lb.loop.run()
        lb.refuse(errno.ECONNREFUSED)
        assert asked.heard == ["connect_refused"] and asked.pending is None


def test_who_does_not_wait_any_more_hears_nothing() -> None:
    with Asking() as lb:
        asked = lb.ask()
        assert asked.pending is not None
        asked.pending.cancel()
        lb.loop.run()
        assert asked.heard == [] and lb.loop.dials == [] and lb.of_servers("upstream_connects_total", "timeout") == 0


def test_nor_does_it_where_the_connection_was_made_in_the_same_turn() -> None:
    with Asking() as lb:
        asked = lb.ask()
        server = lb.accept(turns=False)
        assert asked.pending is not None
        asked.pending.cancel()
        lb.loop.run()
        assert asked.heard == [] and not server.is_open


def test_one_that_takes_too_long_counts_as_a_failed_dial() -> None:
    with Asking() as lb:
        asked = lb.ask()
        assert asked.pending is not None
        asked.pending.expire()
        lb.loop.run()
        assert asked.heard == [] and lb.of_servers("upstream_connects_total", "timeout") == 1


def test_one_that_is_lost_before_it_is_used_has_sent_nothing() -> None:
    with Asking() as lb:
        asked = lb.ask()
        lb.accept(turns=False).reset(turns=False)
        lb.loop.run()
        assert asked.heard == [("dialled", 0.0), "closed_unsent"] and asked.stream is None


def test_a_defect_of_who_asks_is_reported_and_ends_it() -> None:
    class Clumsy(Asked):
        def opened(self, stream: object, now: float) -> None:
            raise ZeroDivisionError

    lb = Asking()
    asked = Clumsy()
    lb.endpoint.open(asked, lb.services, lb.clock(), wants_fresh=False)
    lb.loop.run()
    lb.accept()
    assert asked.heard == [("dialled", 0.0), "broke"]
    assert isinstance(lb.services.tasks, FakeTasks) and sum(lb.services.row) == 1, "one internal error"
    lb.servers[0].transport.sock.close()


def test_a_retired_endpoint_closes_what_is_idle_and_keeps_nothing_more() -> None:
    with Asking() as lb:
        lb.kept()
        other = lb.ask(wants_fresh=True)
        server = lb.accept()
        lb.runtimes[0].retire()
        lb.loop.run()
        assert lb.n_idle == 0 and not lb.servers[0].is_open and server.is_open
        other.begin(prepared_by(lb))
        server.send(ok())
        assert other.heard[-1] == (200, b"hi", True) and not server.is_open
