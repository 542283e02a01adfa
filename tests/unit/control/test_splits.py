"""Shares that operators set: what holds, for how long, and what is told of it."""

from __future__ import annotations

import json
import logging

import pytest

from lbproxy.control.caller import Caller
from lbproxy.control.event_log import EventLog
from lbproxy.control.live import NotThere
from lbproxy.control.live_values import Change, Refused
from lbproxy.control.splits import LiveShares, SplitControl, SplitPlace
from lbproxy.domain.splitting import MOST_POOLS, Split
from lbproxy.request_key import read_key

ALICE = Caller("alice", "10.0.0.9")


class World:
    def __init__(self) -> None:
        self.now = 100.0
        self.n_changes = 0
        self.cells = [0] * MOST_POOLS
        self.places = [self.place(95, 5), self.place(1, 1, position=3, name="chat", by="header:X-User")]
        self.events = EventLog()
        self.control = SplitControl(lambda: self.places, lambda: self.now, self.events, self.changed)

    def changed(self) -> None:
        self.n_changes += 1

    def place(
        self, stable: int, canary: int, *, position: int = 0, name: str | None = None, by: str | None = None
    ) -> SplitPlace:
        cells = self.cells if name is None else [0] * MOST_POOLS
        key = None if by is None else read_key(by)
        split = Split(("stable", "canary"), (stable, canary), key, cells, 0)
        return SplitPlace("web", position, name, name or "any request", split)

    @property
    def split(self) -> Split:
        return self.places[0].split

    def heard(self) -> list[dict[str, object]]:
        return [json.loads(event.text) for event in self.events.after(0)]


@pytest.fixture
def world() -> World:
    return World()


def test_a_split_is_found_by_the_position_or_the_name_of_its_route(world: World) -> None:
    assert world.control.find("web", "0") is world.places[0]
    assert world.control.find("web", "chat") is world.control.find("web", "3") is world.places[1]
    with pytest.raises(NotThere, match=r"there is no split web/chta; did you mean web/chat\?"):
        world.control.find("web", "chta")
    with pytest.raises(NotThere, match="splits: web/0, web/chat"):
        world.control.find("elsewhere", "x")


def test_a_change_holds_at_once_and_says_who_made_it(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        changes = world.control.change(world.places[0], {"stable": 90, "canary": 10}, ALICE)
    assert changes == {"stable": Change(95, 90), "canary": Change(5, 10)}
    assert world.split.shares() == (90, 10)
    assert f"listener web: split of route 0: stable: 95 -> 90, canary: 5 -> 10, by {ALICE}" in caplog.text
    [event] = world.heard()
    assert (event["kind"], event["by"]) == ("live", str(ALICE))
    assert (event["old"], event["new"]) == ({"stable": 95, "canary": 5}, {"stable": 90, "canary": 10})
    assert world.n_changes == 1


def test_who_is_not_named_keeps_his_share(world: World) -> None:
    assert world.control.change(world.places[0], {"canary": 0}, ALICE) == {"canary": Change(5, 0)}
    assert world.split.shares() == (95, 0)
    assert world.control.change(world.places[0], {"canary": 0}, ALICE) == {}
    assert world.n_changes == 1


@pytest.mark.parametrize("wanted", ["file", {"stable": 95, "canary": 5}])
def test_what_the_file_says_is_no_live_value(world: World, wanted: object) -> None:
    world.control.change(world.places[0], {"canary": 50}, ALICE)
    assert world.control.change(world.places[0], wanted, ALICE) == {"canary": Change(50, 5)}
    assert world.split.live() == ()
    assert not world.control.records()


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        (None, 'shares: expected {POOL: share, ...} or "file"; pools: stable, canary'),
        ({}, 'shares: expected {POOL: share, ...} or "file"; pools: stable, canary'),
        ([1, 2], 'shares: expected {POOL: share, ...} or "file"; pools: stable, canary'),
        ({"other": 1}, "shares: the split has no pool other; pools: stable, canary"),
        ({"canary": "5"}, "shares: canary: expected a whole number from 0 to 1000000, got '5'"),
        ({"canary": -1}, "shares: canary: expected a whole number from 0 to 1000000, got -1"),
        ({"canary": True}, "shares: canary: expected a whole number from 0 to 1000000, got true"),
        ({"stable": 0, "canary": 0}, "shares: no pool would have one; one of them must be above 0"),
    ],
)
def test_what_can_not_be_changes_nothing(world: World, wanted: object, problem: str) -> None:
    with pytest.raises(Refused) as raised:
        world.control.change(world.places[0], wanted, ALICE)
    assert raised.value.problems[0].startswith(problem)
    assert world.split.shares() == (95, 5)
    assert world.n_changes == 0


def test_a_reload_that_leaves_the_split_alone_leaves_its_shares(world: World) -> None:
    world.control.change(world.places[0], {"canary": 50}, ALICE)
    world.places[0] = world.place(95, 5, position=2)
    world.control.adopt()
    assert world.split.shares() == (95, 50)
    assert len(world.control.records()) == 1


def test_other_shares_in_the_file_stand_over_live_ones(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.control.change(world.places[0], {"canary": 50}, ALICE)
    world.places[0] = world.place(80, 20)
    with caplog.at_level(logging.INFO):
        world.control.adopt()
    assert world.split.shares() == (80, 20)
    assert not world.control.records()
    assert f"the file gives it other shares now, which stand over those set by {ALICE}" in caplog.text


def test_a_split_that_is_no_more_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.control.change(world.places[0], {"canary": 50}, ALICE)
    del world.places[0]
    with caplog.at_level(logging.INFO):
        world.control.adopt()
    assert not world.control.records()
    assert "the split of any request is no more" in caplog.text


def test_what_is_told(world: World) -> None:
    world.control.change(world.places[0], {"canary": 5, "stable": 15}, ALICE)
    world.now += 7
    assert world.control.told() == [
        {
            "listener": "web",
            "route": 0,
            "name": None,
            "match": "any request",
            "by": None,
            "pools": [
                {"pool": "stable", "share": 15, "ratio": 0.75, "file": 95},
                {"pool": "canary", "share": 5, "ratio": 0.25, "file": 5},
            ],
            "live": {"by": str(ALICE), "since": 7.0},
        },
        {
            "listener": "web",
            "route": 3,
            "name": "chat",
            "match": None,
            "by": "header:X-User",
            "pools": [
                {"pool": "stable", "share": 1, "ratio": 0.5, "file": 1},
                {"pool": "canary", "share": 1, "ratio": 0.5, "file": 1},
            ],
            "live": None,
        },
    ]
    assert world.control.ratios()[:2] == [(("web", "0", "stable"), 0.75), (("web", "0", "canary"), 0.25)]
    assert world.control.ratios()[2][0] == ("web", "chat", "stable")


def test_what_another_process_knew_holds_where_the_file_is_what_it_was(world: World) -> None:
    live = LiveShares("bob", 50.0, (1, 3), (95, 5))
    assert world.control.keep(world.places[0].key, live, "the restart")
    assert world.split.shares() == (1, 3)
    assert world.control.records() == {world.places[0].key: live}
    world.control.give_back(world.places[0].key)
    assert world.split.shares() == (95, 5)
    assert not world.control.records()


@pytest.mark.parametrize(
    "live",
    [
        LiveShares("bob", 50.0, (1, 3), (90, 10)),
        LiveShares("bob", 50.0, (0, 0), (95, 5)),
        LiveShares("bob", 50.0, (1,), (95, 5)),
        LiveShares("bob", 50.0, (-1, 3), (95, 5)),
    ],
)
def test_what_no_call_could_set_or_the_file_has_overtaken_does_not(world: World, live: LiveShares) -> None:
    assert world.control.keep(world.places[0].key, live, "the restart")
    assert world.split.shares() == (95, 5)
    assert not world.control.keep(("web", "other", ("stable", "canary")), live, "the restart")
