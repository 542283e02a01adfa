"""From a config to who may ask, and how much; what a reload keeps of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lbproxy.api_keys import hash_of
from lbproxy.config.loader import load_text
from lbproxy.config.model import Config
from lbproxy.config.problems import Unusable
from lbproxy.control.file_watch import WatchedFiles
from lbproxy.dataplane.guard import Limit
from lbproxy.errors import RATE_LIMITED
from lbproxy.process.guarding import GuardBuilder, GuardRoom, KeyFile
from lbproxy.tasks import Tasks
from lbproxy.telemetry.slots import LIMIT, PROCESS

REST = """
listeners:
- bind: ":1"
  routes:
  - {pool: p}
  - {match: {path: /a}, pool: p, api_keys: off}
  - {match: {path: /b}, pool: p, api_keys: optional}
  - {match: {path: /c}, pool: p, api_keys: [x, y]}
  - {match: {path: /d}, pool: p, api_keys: ["*"]}
  - {match: {path: /e}, pool: p, api_keys: required}
pools: {p: {servers: ["a:1"]}}
"""
KEYS = "api_keys: {file: keys, required: false}\n"


def config(text: str, rest: str = REST) -> Config:
    return load_text(text + rest, "lb.yaml", {}).config


def built(text: str, folder: Path, room: GuardRoom | None = None, rest: str = REST) -> GuardBuilder:
    return GuardBuilder(config(text, rest), room or GuardRoom(), lambda name: [0] * LIMIT.width, [], str(folder))


def test_without_keys_and_limits_there_is_no_guard(tmp_path: Path) -> None:
    plain = REST.replace(", api_keys: [x, y]", "").replace(", api_keys: optional", "").replace(', api_keys: ["*"]', "")
    guarding = built("", tmp_path, rest=plain.replace(", api_keys: required", ""))
    assert guarding.guard is None and guarding.key_rule(config(KEYS).listeners[0].routes[0]) is None


def test_what_routes_ask_for(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"x {hash_of('k')}\n")
    guarding = built(KEYS, tmp_path)
    rules = [guarding.key_rule(route) for route in config(KEYS).listeners[0].routes]
    told = [None if rule is None else (rule.is_needed, rule.names) for rule in rules]
    assert told == [
        (False, None),
        None,
        (False, None),
        (True, frozenset("xy")),
        (True, None),
        (True, None),
    ]
    needed = built(KEYS.replace(", required: false", ""), tmp_path).key_rule(config(KEYS).listeners[0].routes[0])
    assert needed is not None and needed.is_needed


def test_a_file_that_cannot_be_read_is_told_at_its_key(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="keys: cannot be read: No such file or directory; `lbproxy key new") as raised:
        built(KEYS, tmp_path)
    assert raised.value.path == ("api_keys", "file")


def test_other_keys_are_used_and_heads_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"x {hash_of('k')}\n")
    watched: list[WatchedFiles] = []
    changes: list[str] = []
    room = GuardRoom(keys_changed=lambda: changes.append("changed"))
    guard = GuardBuilder(config(KEYS), room, lambda name: [], watched, str(tmp_path)).guard
    assert guard is not None and guard.keys is not None
    [files] = watched
    assert isinstance(files.target, KeyFile) and files.paths == (str(path),)
    path.write_text(f"y {hash_of('k')}\n")
    files.target.use(files.target.load())
    assert guard.keys.ring.name_of(b"k") == "y" and changes == ["changed"]


LIMITS = """
rate_limits:
- {key: client_ip, rate: 100/s}
- {name: n, key: all, rate: 3/m, burst: 2, status: 503, match: {path: /p}}
"""


def limits_of(guarding: GuardBuilder) -> tuple[Limit, ...]:
    assert guarding.guard is not None
    return guarding.guard.limits


def test_limits(tmp_path: Path) -> None:
    room = GuardRoom()
    first, second = limits_of(built(LIMITS + KEYS.replace("file: keys", "file: k"), _with_keys(tmp_path), room))
    assert (first.name, first.interval, first.burst, first.depth) == ("client_ip", 10_000_000, 100, 1_000_000_000)
    assert first.fault is RATE_LIMITED and first.is_by_client and first.match is None and first.fleet is None
    assert (second.name, second.interval, second.fault.status) == ("n", 20_000_000_000, 503)
    assert second.fault.word == "rate_limited" and second.key is None and second.match is not None
    again = limits_of(built(LIMITS + KEYS.replace("file: keys", "file: k"), tmp_path, room))
    assert again[0].buckets is first.buckets is room.the_buckets(), "a reload keeps what is in them"
    assert again[0].mark_of(b"x") == first.mark_of(b"x")


def _with_keys(folder: Path) -> Path:
    (folder / "k").write_text("")
    return folder


def test_what_was_forgotten_is_counted_once() -> None:
    room, row = GuardRoom(), [0] * PROCESS.width
    room.count(row)
    room.the_buckets().n_forgotten = 5
    room.count(row)
    room.count(row)
    assert row[PROCESS.column("rate_limit_keys_forgotten_total")] == 5


async def test_links_run_while_a_config_names_them(tmp_path: Path) -> None:
    plain = "listeners: [{bind: ':1', pool: p}]\npools: {p: {servers: ['a:1']}}\n"
    text = f"rate_limits: [{{key: all, rate: 1/s, store: 'unix://{tmp_path}/none'}}]\n"
    both = text.replace("]\n", f", {{key: path, rate: 1/s, store: 'unix://{tmp_path}/other'}}]\n")
    room, tasks = GuardRoom(), Tasks()
    first = built(text, tmp_path, room, plain)
    room.links = first.links
    assert not tasks
    room.begin(tasks.spawn)
    assert len(tasks) == 1
    second = built(both, tmp_path, room, plain)
    assert len(tasks) == 1, "nothing begins before the config is in force"
    assert [link for link in second.links.values() if link in first.links.values()] == [*first.links.values()]
    assert limits_of(second)[0].fleet is limits_of(first)[0].fleet
    room.use(second.links)
    assert len(tasks) == 2
    room.use({})
    for _ in range(100):
        await asyncio.sleep(0)
    assert not tasks
