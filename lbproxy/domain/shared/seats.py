"""Who sits where: the members of a pool, as the books say it to all workers.

The controller gives a server a seat and takes it away; each worker has it from its next look on, and a worker that
begins finds all that are there. Who sits there stands on a card, which is written before the first word of the seat
says that somebody does.

    seat taken     the first word is the server's number, and those who know it write that they do
    it leaves      the first word is that number, negative: no worker that begins takes it up, and the others let it go
                   when they have nothing more to say about it
    seat free      no worker knows it, and nothing is in flight there: only then may another sit down

To be called inside the pool's guard only.
"""

from __future__ import annotations

from typing import Final

from lbproxy.address import Address
from lbproxy.domain.server import Server
from lbproxy.domain.shared.cells import Cells
from lbproxy.domain.shared.plan import CARD_WORDS, SEAT, SEATED, Plan

CARD_BYTES: Final = 8 * (CARD_WORDS - 1)
_END: Final = "\0"  # in no name, host or path


def card_of(server: Server) -> bytes:
    """What says who it is. Raises ValueError if there is no room for it, which names, hosts and paths don't come to."""
    address = server.address
    text = _END.join((server.name, server.host, address.host, str(address.port), address.path))
    card = text.encode("utf-8", "surrogateescape")
    if len(card) > CARD_BYTES:
        raise ValueError(
            f"server {server.name[:128]}: {len(card)} bytes of name and address, and {CARD_BYTES} are the most"
        )
    return card


def server_of_card(card: bytes) -> Server:
    """The server that it names, with nothing else known of it."""
    name, host, ip, port, path = card.decode("utf-8", "surrogateescape").split(_END)
    return Server(name, Address(ip, int(port), path), host=host)


def write_text(cells: Cells, at: int, text: bytes) -> None:
    """Its length, and eight bytes in each word behind that."""
    cells[at] = len(text)
    for start in range(0, len(text), 8):
        at += 1
        cells[at] = int.from_bytes(text[start : start + 8].ljust(8, b"\0"), "little", signed=True)


def read_text(cells: Cells, at: int, most: int) -> bytes:
    """What `write_text` wrote; most: as many bytes."""
    length = min(max(0, cells[at]), most)
    words = [cells[at + number] for number in range(1, 1 + (length + 7) // 8)]
    return b"".join(word.to_bytes(8, "little", signed=True) for word in words)[:length]


def write_card(cells: Cells, plan: Plan, seat: int, card: bytes) -> None:
    write_text(cells, plan.card(seat), card)


def read_card(cells: Cells, plan: Plan, seat: int) -> bytes:
    return read_text(cells, plan.card(seat), CARD_BYTES)


def is_free(cells: Cells, plan: Plan, seat: int) -> bool:
    """May another server sit down here?"""
    if cells[plan.server(seat) + SEAT] > 0:
        return False
    uses, count = plan.uses(seat), plan.count(seat)
    return not any(cells[uses + worker] for worker in range(plan.n_workers)) and not any(
        cells[count + number] for number in range(plan.count_words)
    )


def free_seat(cells: Cells, plan: Plan) -> int:
    """One that is free; -1 if there is none."""
    for seat in range(plan.n_servers):
        if is_free(cells, plan, seat):
            return seat
    return -1


def prepare(cells: Cells, plan: Plan, seat: int, card: bytes) -> None:
    """A server is about to sit down: nothing is known of it. What the controller says of it is to be written next."""
    server = plan.server(seat)
    for word in range(SEAT, plan.server_words):
        cells[server + word] = 0
    write_card(cells, plan, seat, card)


def sit_down(cells: Cells, plan: Plan, seat: int) -> int:
    """From now on it sits there. Returns its number."""
    number = cells[plan.first + SEATED] + 1
    cells[plan.first + SEATED] = number
    cells[plan.server(seat) + SEAT] = number
    return number


def get_up(cells: Cells, plan: Plan, seat: int) -> None:
    """It leaves."""
    at = plan.server(seat) + SEAT
    if cells[at] > 0:
        cells[at] = -cells[at]
