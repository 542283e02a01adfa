"""Who may go on reading in this turn of the loop, and whose turn it is among those who may not."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from lbproxy.dataplane.net.poller import Pollable, Poller
from lbproxy.dataplane.net.read_turns import ANSWERS, FEW, PIECE_S, SOME, TURN_S, ReadTurns
from lbproxy.dataplane.net.turn_end import Writer
from tests.support.fake_transport import FakeClock, FakeLoop


class Reader:
    """Has so much to read; each turn takes that long."""

    def __init__(self, setting: Setting, name: str, n_turns: int, took_s: float = 0.0) -> None:
        self._setting = setting
        self._name = name
        self._left = n_turns
        self._took_s = took_s

    def take_turn(self) -> bool:
        self._setting.said.append(self._name)
        self._setting.clock.now += self._took_s
        self._left -= 1
        return self._left > 0


class Broken:
    def take_turn(self) -> bool:
        raise ValueError("a defect")


class Leaving(Writer):
    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def flush(self) -> None:
        self._setting.said.append("flush")


class Writing:
    """Leaves something to the end of the turn."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def take_turn(self) -> bool:
        self._setting.said.append("write")
        self._setting.poller.turn_end.add(Leaving(self._setting))
        return False


class Asking:
    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self.got: list[int] = []

    def take_turn(self) -> bool:
        self.got.append(self._setting.turns.more_units())
        self._setting.clock.now += PIECE_S
        self.got.append(self._setting.turns.more_units())
        return False


class Setting:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.loop = FakeLoop(self.clock)
        self.defects: list[BaseException] = []
        self.said: list[str] = []
        loop = cast(asyncio.AbstractEventLoop, self.loop)
        self.poller = Poller(loop, lambda where, error: self.defects.append(error))
        self.turns = ReadTurns(loop, self.poller, self.clock)


@pytest.fixture
def setting() -> Setting:
    return Setting()


def test_in_a_turn_all_together_have_so_much_time(setting: Setting) -> None:
    setting.loop.turn()
    began = setting.clock()
    assert setting.turns.units(began) == SOME
    assert setting.turns.more_units() == SOME
    setting.clock.now = began + TURN_S / 2
    assert setting.turns.units(setting.clock()) == SOME, "another one"
    setting.clock.now = began + TURN_S * 1.01
    assert setting.turns.more_units() == 0


def test_whoever_comes_behind_that_gets_a_little_at_once(setting: Setting) -> None:
    setting.loop.turn()
    setting.turns.units(setting.clock())
    setting.clock.now += TURN_S * 1.01
    assert setting.turns.units(setting.clock()) == FEW
    setting.loop.turn()
    assert setting.turns.units(setting.clock()) == SOME, "the next turn"


def test_whoever_comes_while_others_wait_gets_a_little_at_once(setting: Setting) -> None:
    setting.turns.wait(Reader(setting, "a", 1).take_turn)
    assert setting.turns.units(setting.clock()) == FEW
    assert setting.turns.more_units() == 0
    setting.loop.run()
    setting.loop.turn()
    assert setting.turns.units(setting.clock()) == SOME


def test_those_who_wait_take_turns(setting: Setting) -> None:
    setting.turns.wait(Reader(setting, "a", 3).take_turn)
    setting.turns.wait(Reader(setting, "b", 1).take_turn)
    setting.turns.wait(Reader(setting, "c", 2).take_turn)
    assert setting.said == [], "not before the sockets were looked at"
    setting.loop.run()
    assert "".join(setting.said) == "abcaca"
    assert setting.turns.n_waiting == 0


def test_between_two_pieces_the_sockets_are_looked_at(setting: Setting) -> None:
    for name in "abc":
        setting.turns.wait(Reader(setting, name, 2, PIECE_S * 0.6).take_turn)
    done = []
    before = setting.poller.n_turns
    while setting.turns.n_waiting:
        setting.loop.turn()
        done.append("".join(setting.said))
        setting.said.clear()
    assert done == ["ab", "ca", "bc"]
    assert setting.poller.n_turns == before + 3


def test_who_waits_alone_may_take_the_whole_piece(setting: Setting) -> None:
    reader = Asking(setting)
    setting.turns.wait(reader.take_turn)
    setting.loop.run()
    assert reader.got == [SOME, 0]


def test_who_waits_with_others_may_not(setting: Setting) -> None:
    reader = Asking(setting)
    setting.turns.wait(reader.take_turn)
    setting.turns.wait(Reader(setting, "b", 1).take_turn)
    setting.loop.run()
    assert reader.got == [0, 0]


def test_a_defect_does_not_keep_the_others(setting: Setting) -> None:
    setting.turns.wait(Broken().take_turn)
    setting.turns.wait(Reader(setting, "b", 1).take_turn)
    setting.loop.run()
    assert setting.said == ["b"]
    assert [str(defect) for defect in setting.defects] == ["a defect"]


def test_what_a_piece_writes_leaves_with_it(setting: Setting) -> None:
    setting.turns.wait(Writing(setting).take_turn)
    setting.turns.wait(Reader(setting, "b", 1).take_turn)
    setting.loop.turn()
    assert setting.said == ["write", "b", "flush"]


def test_who_comes_while_the_last_one_reads_is_not_called_twice(setting: Setting) -> None:
    class Inviting:
        def take_turn(self) -> bool:
            setting.turns.wait(Reader(setting, "b", 1, PIECE_S).take_turn)
            setting.clock.now += PIECE_S
            return False

    setting.turns.wait(Inviting().take_turn)
    setting.loop.turn()
    assert setting.said == []
    setting.loop.turn()
    assert setting.said == ["b"]
    setting.turns.wait(Reader(setting, "c", 1).take_turn)
    setting.loop.run()
    assert setting.said == ["b", "c"]


def test_what_ends_is_of_the_time_of_a_piece(setting: Setting) -> None:
    class Closing(Pollable):
        def take_turn(self) -> bool:
            setting.poller.after_batch(self)
            return False

        def batch_ended(self) -> None:
            setting.clock.now += PIECE_S
            setting.said.append("closed")

    setting.turns.wait(Closing().take_turn)
    setting.turns.wait(Reader(setting, "b", 1).take_turn)
    setting.loop.turn()
    assert setting.said == ["closed"]
    setting.loop.turn()
    assert setting.said == ["closed", "b"]


def test_what_waits_is_done_before_the_end(setting: Setting) -> None:
    setting.turns.wait(Reader(setting, "a", 2, PIECE_S).take_turn)
    setting.turns.wait(Reader(setting, "b", 1).take_turn)
    setting.turns.close()
    assert setting.said == ["a", "b", "a"]
    setting.loop.run()
    assert setting.said == ["a", "b", "a"]


def test_servers_have_a_time_of_their_own_whoever_waits(setting: Setting) -> None:
    setting.turns.wait(Reader(setting, "a", 1).take_turn)
    setting.poller.turn()
    began = setting.clock()
    assert setting.turns.answers(began) == setting.turns.more_answers() == ANSWERS
    setting.clock.now = began + TURN_S * 1.01
    assert setting.turns.more_answers() == 0
    assert setting.turns.answers(setting.clock()) == ANSWERS, "another one, at once"
    assert setting.turns.more_answers() == 0
    setting.poller.turn()
    assert setting.turns.answers(setting.clock()) == setting.turns.more_answers() == ANSWERS
