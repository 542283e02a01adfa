from __future__ import annotations

import pytest

from lbproxy.domain.strategies.base import PickContext
from lbproxy.domain.ticket import Ticket
from tests.unit.domain.test_fair_queue import Site


def test_a_ticket_waits_for_nothing_at_first_and_is_nobody_s() -> None:
    ticket = Ticket(PickContext("192.0.2.1"), enqueued_at=1.0)
    assert (ticket.is_waiting, ticket.rank, ticket.share, ticket.is_trusted()) == (False, 0, b"", False)
    assert ticket.expires_at == ticket.deadline_at == float("inf")


def test_who_waits_says_what_comes_of_it() -> None:
    site = Site(1)
    site.ask("a", 0.0)
    ticket = Ticket(PickContext("192.0.2.1"), enqueued_at=1.0)
    with pytest.raises(NotImplementedError):
        ticket.granted(site.leases[0], 1.0)
    with pytest.raises(NotImplementedError):
        ticket.refused("timeout")
    with pytest.raises(NotImplementedError):
        ticket.failed(OSError())
