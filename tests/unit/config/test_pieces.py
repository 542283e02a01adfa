"""A file that is read again is read as if it were read for the first time: models, warnings, problems, places."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.config import pieces
from lbproxy.config.loader import Kept, Loaded, load_text
from lbproxy.config.nodes import compose
from lbproxy.config.problems import ConfigError, Path, Problem

POOL = """\
  {name}:
    servers:
      - address: 127.0.0.1:{port}
        weight: 2
      - 10.0.0.1:{port}
"""
START = (
    """\
# what stands before
admin: 127.0.0.1:8404
listeners:
  - bind: :5000
    routes:
      - match: {path_prefix: /a/}   # a comment
        pool: a
      - pool: b
  - {bind: '127.0.0.1:5001', mode: tcp, pool: c}

pools:
  # the first
"""
    + "".join(POOL.format(name=name, port=port) for name, port in (("a", 1000), ("b", 1001), ("c", 1002)))
    + """\
    timeouts: {read: 2h}

  d:
    strategy: round_robin
    servers: [{address: "10.0.0.4:1", weight: 5}, '10.0.0.4:2']
shutdown:
  grace: ${GRACE:-10s}
"""
)
LINES = (
    "",
    "# a comment: it's [odd",
    "  e: {servers: [10.0.0.9:80]}",
    "  f:",
    "    kind: gunicorn",
    "    timeouts: {total: 5s}",
    "    queue: {timeout: 7s}",
    "    queue: {timeout: 90m}",
    "    health_check: {path: '/x*', interval: 50ms}",
    "    strategy: {name: ip_hash, odd: 1}",
    "    strategy: other",
    "    strategy: weighted_round_robin",
    "    sticky: {cookie: c}",
    "    max_inflight: ${MANY}",
    "    servers: &all [10.0.0.9:80]",
    "    servers: *all",
    "    tsl: true",
    "    headers: {request: {set: {x-a: 'b', X-A: c}}}",
    "      - 0.0.0.0:81",
    "      - 127.0.0.1:5000",
    "      - address: 127.0.0.1:1000",
    "      - 'open",
    "      - [open",
    "\tdns: {}",
    "        more",
    "  'a':",
    "  - x",
    "- bind: :7000",
    "pools:",
    "pools: {}",
    "'pools':",
    "listeners: [{bind: ':81', pool: d}]",
    "log: {level: debug}",
    "admin: off",
    "limits: {connections: many}",
    "watch: true",
    "---",
    "...",
    "access_log: {path: |",
    "access_log: >-",
    "  two",
    "  - bind: :5000",
    "  - {bind: ':5002', pool: nowhere}",
    "tests:",
    "  - {request: {path: /a/}, expect: {pool: a}}",
    "? x",
    "trusted_proxies: [0.0.0.0/0]",
)


@dataclass(frozen=True)
class Heard:
    """All that anybody hears of a reading."""

    loaded: Loaded | None
    problems: tuple[Problem, ...]

    def places(self) -> dict[tuple[Path, bool], tuple[int, int]]:
        if self.loaded is None:
            return {}
        document = self.loaded.document
        asked = [*document.keys, *document.values, ("pools",), ("pools", "no"), ("admin", "no"), ("no",), ()]
        found = {(path, at_key): document.place(path, at_key=at_key) for path in asked for at_key in (False, True)}
        return {path: (place.line, place.column) for path, place in found.items()}


def heard(text: str, environ: dict[str, str], kept: Kept | None = None) -> Heard:
    try:
        loaded = load_text(text, "lb.yaml", environ, base_dir="/nowhere", kept=kept)
    except ConfigError as error:
        return Heard(None, error.problems)
    return Heard(loaded, loaded.warnings)


def assert_as_for_the_first_time(text: str, environ: dict[str, str], kept: Kept) -> bool:
    """Whether the text is right."""
    again, first = heard(text, environ, kept), heard(text, environ)
    assert [str(problem) for problem in again.problems] == [str(problem) for problem in first.problems]
    assert again.problems == first.problems
    assert (again.loaded is None) == (first.loaded is None)
    if again.loaded is not None and first.loaded is not None:
        assert again.loaded.config == first.loaded.config
        assert repr(again.loaded.config) == repr(first.loaded.config)
        assert again.loaded.document.data == first.loaded.document.data
        assert repr(again.loaded.document.data) == repr(first.loaded.document.data)
        assert again.loaded.document.flow == first.loaded.document.flow
        assert again.places() == first.places()
    return first.loaded is not None


def edited(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    match rng.randrange(9):
        case 0 | 1 | 2:
            lines.insert(at, rng.choice(LINES))
        case 3:
            del lines[at]
        case 4:
            lines.insert(at, lines[rng.randrange(len(lines))])
        case 5:
            lines[at] = " " * rng.randrange(6) + lines[at].lstrip()
        case 6:
            lines[at] = lines[at].replace("1", rng.choice("123"))
        case 7:  # a pool goes elsewhere
            end = min(at + 5, len(lines))
            piece = lines[at:end]
            del lines[at:end]
            to = rng.randrange(len(lines) + 1)
            lines[to:to] = piece
        case _:
            lines[at] += rng.choice((" ", "  # said", "#", " x", ":", "'"))
    return "\n".join(lines)


@given(st.randoms(use_true_random=False))
def test_random_edits_are_read_as_for_the_first_time(rng: random.Random) -> None:
    kept, environ, good = Kept(), {"MANY": "3"}, START
    assert_as_for_the_first_time(good, environ, kept)
    assert kept.pieces, "else nothing would be shown"
    for _ in range(2):
        text = good
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            text = edited(text, rng)
        environ = rng.choice(({"MANY": "3"}, {"MANY": "4", "GRACE": "5s"}, {}))
        if assert_as_for_the_first_time(text, environ, kept) or rng.random() < 0.1:
            good = text


def read(text: str, kept: Kept, **environ: str) -> Loaded:
    return load_text(text, "lb.yaml", environ, kept=kept)


def test_a_pool_that_stands_there_as_before_is_the_same_object_and_its_warnings_move_with_it() -> None:
    kept = Kept()
    before = read(START, kept)
    after = read(START.replace("  # the first\n", "").replace("127.0.0.1:1000", "127.0.0.1:1009"), kept)
    assert after.config.pools["c"] is before.config.pools["c"]
    assert after.config.listeners[0] is before.config.listeners[0]
    assert after.config.pools["a"] != before.config.pools["a"]
    assert [str(item) for item in before.warnings] == [
        "lb.yaml:28:22: pools.c.timeouts.read: is longer than an hour (2 hours)",
        "lb.yaml:30:3: pools.d: no listener uses this pool",
        "lb.yaml:32:47: pools.d.servers[0].weight: the strategy round_robin ignores weights; use weighted_round_robin",
    ]
    assert [item.line for item in after.warnings] == [27, 29, 31]


def test_what_a_variable_or_what_is_installed_decides_about_is_read_anew() -> None:
    kept = Kept()
    text = START.replace("10.0.0.1:1001", "${B}").replace("round_robin", "{python: 'x:Y'}")
    assert read(text, kept, B="10.0.0.7:1").config.pools["b"].servers[1].name == "10.0.0.7:1"
    assert read(text, kept, B="10.0.0.8:1").config.pools["b"].servers[1].name == "10.0.0.8:1"
    assert {piece.path for piece in kept.pieces.values()} == {
        ("admin",),
        ("listeners",),
        ("pools", "a"),
        ("pools", "c"),
    }


def test_what_is_kept_is_no_more_than_the_file_and_a_wrong_file_changes_nothing() -> None:
    kept = Kept()
    for port in range(50):
        read(START.replace("1000", str(2000 + port)), kept)
    assert len(kept.pieces) == 6  # all but what has a variable
    before = dict(kept.pieces)
    with pytest.raises(ConfigError):
        read(START + "odd: 1\n", kept)
    assert kept.pieces == before


@pytest.mark.parametrize(
    "text",
    [
        "pools:\n  a: {}\npools:\n  b: {}\n",
        "pools:\n  a: {}\npools: {}\n",
        "pools: {}\npools:\n  a: {}\n",
        "pools:\n  a: {}\n  a: {}\n",
        "pools:\n  - a\n",
        "admin: off\nadmin: off\n",
        "a: 'open\n",
        "a: {b\n",
        "pools:\n  a: &x {}\n",
        "a: b\n  c: d\n",
        "a: " + "[" * 3,
    ],
)
def test_what_must_be_read_in_one(text: str) -> None:
    assert pieces.read(text, "lb.yaml", {}, Kept()) is None


def test_all_pieces_together_have_the_bounds_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "listeners: [{bind: ':1', pool: a}]\npools:\n  a: {servers: [10.0.0.1:1]}\n  b: {servers: [10.0.0.1:1]}\n"
    n_nodes = compose(text).size
    for most, is_read in ((n_nodes, True), (n_nodes - 1, False)):
        monkeypatch.setattr(pieces, "MAX_NODES", most)
        assert (pieces.read(text, "f", {}, Kept()) is not None) == is_read
