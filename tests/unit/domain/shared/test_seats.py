"""Who sits where is read as it was written, and a seat is free when nobody can say anything about who had it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.address import Address
from lbproxy.domain.server import Server
from lbproxy.domain.shared.plan import SEAT, Plan
from lbproxy.domain.shared.seats import (
    CARD_BYTES,
    card_of,
    free_seat,
    get_up,
    prepare,
    read_card,
    server_of_card,
    sit_down,
    write_card,
)

PLAN = Plan(2, n_workers=2, n_servers=3, n_rows=1, n_places=1)
TEXT = st.text(st.characters(blacklist_characters="\0", codec="utf-8"), max_size=60)


@given(TEXT, TEXT, TEXT, st.integers(0, 65535), TEXT)
def test_a_card_says_who_it_is(name: str, host: str, ip: str, port: int, path: str) -> None:
    cells = [0] * PLAN.end
    server = Server(name, Address(ip, port, path), host=host)
    write_card(cells, PLAN, 1, b"x" * CARD_BYTES)
    write_card(cells, PLAN, 1, card_of(server))
    read = server_of_card(read_card(cells, PLAN, 1))
    assert (read.name, read.host, read.address, read.key) == (name, server.host, server.address, server.key)
    assert not any(cells[: PLAN.card(1)]) and not any(cells[PLAN.card(2) :])


def test_there_is_a_bound_for_what_a_server_is_called() -> None:
    widest = Server("\U0001f600" * 128, Address("10.0.0.1", 1, "/" * 107), host="x" * 253)
    assert len(card_of(widest)) < CARD_BYTES
    longest = CARD_BYTES - len(card_of(Server("", Address("10.0.0.1", 1))))
    card_of(Server("x" * longest, Address("10.0.0.1", 1)))
    with pytest.raises(ValueError, match=f"and {CARD_BYTES} are the most"):
        card_of(Server("x" * (longest + 1), Address("10.0.0.1", 1)))


def test_a_seat_is_free_when_nobody_knows_who_had_it_and_nothing_is_in_flight() -> None:
    cells = [0] * PLAN.end
    numbers = []
    for seat in range(3):
        assert free_seat(cells, PLAN) == seat
        prepare(cells, PLAN, seat, b"card")
        numbers.append(sit_down(cells, PLAN, seat))
    assert (numbers, free_seat(cells, PLAN)) == ([1, 2, 3], -1)
    for at in (PLAN.uses(1) + 1, PLAN.count(1), PLAN.loose(1, 0)):
        cells[at] = 1
    for _ in range(2):
        get_up(cells, PLAN, 1)
    assert cells[PLAN.server(1) + SEAT] == -2
    for at in (PLAN.uses(1) + 1, PLAN.count(1), PLAN.loose(1, 0)):
        assert free_seat(cells, PLAN) == -1
        cells[at] = 0
    assert free_seat(cells, PLAN) == 1
    prepare(cells, PLAN, 1, b"other")
    assert (cells[PLAN.server(1) + SEAT], sit_down(cells, PLAN, 1)) == (0, 4)
