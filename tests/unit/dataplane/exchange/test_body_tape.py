"""What is kept of a request's body, for how long, and for whom."""

from __future__ import annotations

from lbproxy.dataplane.exchange.body_tape import BodyTape, Follower
from lbproxy.dataplane.pressure import COUNTED_FROM, Pressure
from lbproxy.telemetry.slots import PROCESS, Slots

BIG = bytes(COUNTED_FROM + 1)


class Reader(Follower):
    """Takes what is kept when it is told to, and then what comes."""

    def __init__(self, tape: BodyTape) -> None:
        super().__init__()
        self.tape = tape
        self.got = b""
        self.is_ended = False
        self.unsent = 0
        tape.follow(self)

    def begin(self) -> None:
        self.got = self.tape.content()
        self.is_ended = self.tape.is_whole
        self.is_behind = False

    def body_came(self, data: bytes, *, is_done: bool) -> None:
        if not self.is_behind:
            self.got += data
            self.is_ended = is_done

    def unsent_bytes(self) -> int:
        return self.unsent


def new_tape(limit: int = 1 << 30) -> BodyTape:
    return BodyTape(Pressure(limit, Slots().allocate(PROCESS), lambda: 0.0))


def test_each_reader_has_it_from_the_beginning() -> None:
    tape = new_tape()
    tape.add(b"one ", is_done=False)
    first = Reader(tape)
    first.begin()
    tape.add(b"two ", is_done=False)
    second = Reader(tape)
    tape.add(b"three", is_done=False)
    second.begin()
    tape.add(b"", is_done=True)
    assert first.got == second.got == b"one two three"
    assert first.is_ended and second.is_ended and tape.is_whole and tape.kept == 13


def test_who_has_left_hears_no_more() -> None:
    tape = new_tape()
    readers = [Reader(tape) for _ in range(3)]
    for reader in readers:
        reader.begin()
    for number, gone in enumerate((readers[1], readers[2], readers[0])):
        tape.add(b"x", is_done=False)
        tape.leave(gone)
        assert [len(reader.got) for reader in readers] == [[1, 1, 1], [2, 1, 2], [3, 1, 2]][number]
    tape.add(b"x", is_done=True)
    tape.leave(readers[0])
    assert [len(reader.got) for reader in readers] == [3, 1, 2]


def test_a_dropped_copy_is_gone_and_what_comes_is_passed_on() -> None:
    tape = new_tape()
    reader = Reader(tape)
    tape.add(b"one ", is_done=False)
    reader.begin()
    tape.drop()
    tape.add(b"two", is_done=True)
    assert reader.got == b"one two" and tape.content() == b"" and tape.kept == 0 and tape.is_dropped


def test_too_much_is_not_kept_once_everybody_has_begun() -> None:
    tape = new_tape()
    tape.add(b"12345", is_done=False)
    first, second = Reader(tape), Reader(tape)
    first.begin()
    tape.drop_beyond(4)
    assert tape.kept == 5, "the second one has it not"
    second.begin()
    tape.drop_beyond(5)
    assert not tape.is_dropped
    tape.drop_beyond(4)
    assert tape.is_dropped and first.got == second.got == b"12345"


def test_large_copies_are_counted_while_they_are_there() -> None:
    pressure = Pressure(1 << 30, Slots().allocate(PROCESS), lambda: 0.0)
    tape = BodyTape(pressure)
    tape.add(BIG, is_done=False)
    tape.add(b"more", is_done=True)
    assert pressure.buffered == len(BIG) + 4
    tape.drop()
    tape.drop()
    assert pressure.buffered == 0


def test_small_ones_are_left_to_the_sweep() -> None:
    pressure = Pressure(1 << 30, Slots().allocate(PROCESS), lambda: 0.0)
    tape = BodyTape(pressure)
    tape.add(BIG[1:], is_done=True)
    assert pressure.buffered == 0
    tape.drop()
    assert pressure.buffered == 0


def test_spare_is_what_every_reader_has_sent() -> None:
    tape = new_tape()
    tape.add(BIG, is_done=False)
    assert tape.spare_bytes() == 0, "nobody has it"
    first, second = Reader(tape), Reader(tape)
    first.begin()
    assert tape.spare_bytes() == 0, "the second one has it not"
    second.begin()
    first.unsent, second.unsent = 10, 30
    assert tape.spare_bytes() == len(BIG) - 30
    tape.leave(second)
    assert tape.spare_bytes() == len(BIG) - 10


def test_it_gives_way_when_memory_is_short() -> None:
    row = Slots().allocate(PROCESS)
    pressure = Pressure(4 * len(BIG), row, lambda: 0.0)
    tape, waiting = BodyTape(pressure), BodyTape(pressure)
    waiting.add(BIG, is_done=True)
    reader = Reader(tape)
    reader.begin()
    tape.add(BIG, is_done=True)
    pressure.count(len(BIG))
    assert tape.is_dropped and reader.got == BIG and not waiting.is_dropped
    assert row[PROCESS.column("replay_copies_dropped_total")] == 1
