from __future__ import annotations

from typing import Any

import pytest

from lbproxy.control.kept_data import PoolChanges, Unreadable, changes_since, json_of, read, value_in
from lbproxy.domain.states import Admin

LIVE: dict[str, Any] = {"value": 3, "given": 1, "by": "ci", "at": 1.0}
SERVER: dict[str, Any] = {"name": "a", "address": "10.0.0.1:80", "live": {"weight": LIVE}}
GOOD: dict[str, Any] = {"version": 1, "saved_at": 1_700_000_000, "pools": {"p": {"servers": [SERVER]}}}


def test_what_is_of_the_form_is_read() -> None:
    assert read(GOOD).pools["p"].servers[0].live["weight"].value == 3


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ([], "version None"),
        ({"version": 2}, "it is of version 2, and this lbproxy reads version 1"),
        ({"version": 1, "pools": {}}, "saved_at: Field required"),
        ({**GOOD, "saved_at": float("nan")}, "saved_at: "),
        ({**GOOD, "pools": {"p": {"servers": [{"name": "a"}]}}}, r"pools\.p\.servers\.0\.address: Field required"),
        ({**GOOD, "pools": {"p": {"servers": [{**SERVER, "live": {"backup": LIVE}}]}}}, "live.backup"),
        ({**GOOD, "pools": {"p": {"servers": [{**SERVER, "live": {"weight": {**LIVE, "value": True}}}]}}}, "value"),
        ({**GOOD, "more": 1}, "more: Extra inputs"),
    ],
)
def test_what_is_no_state_is_refused_as_a_whole(data: object, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        read(data)


@pytest.mark.parametrize(("key", "value"), [("admin", Admin.DRAIN), ("weight", 0), ("max_inflight", 0), ("weight", 3)])
def test_values_come_back_as_they_were(key: str, value: Any) -> None:
    assert value_in(key, json_of(key, value)) == value


@pytest.mark.parametrize(
    ("key", "value"), [("admin", "off"), ("admin", 1), ("weight", -1), ("weight", 65536), ("max_inflight", 1_000_001)]
)
def test_values_that_no_call_could_set_are_none(key: str, value: Any) -> None:
    assert value_in(key, value) is None


def test_what_operators_did_between_two_snapshots() -> None:
    """What stayed as it was is none of it, a time that is another one by the wall clock included."""
    added = {"by": "ci", "at": 1.0, "weight": 1, "max_inflight": None, "backup": False}
    more: dict[str, Any] = {"name": "b", "address": "10.0.0.2:80", "added": added}
    gone: dict[str, Any] = {"name": "c", "address": "10.0.0.3:80", "by": "ci", "at": 1.0}

    def state(servers: list[object], *removed: object) -> Any:
        return read({**GOOD, "pools": {"p": {"servers": servers, "removed": list(removed)}}})

    later = {**SERVER, "live": {"weight": {**LIVE, "at": 1.001}}}
    [same] = changes_since(state([SERVER, more]), state([later, more])).values()
    assert same == PoolChanges()
    [found] = changes_since(state([SERVER, more], gone), state([{**more, "added": {**added, "weight": 2}}])).values()
    assert [item.name for item in found.withdrawn] == ["b"] and [item.name for item in found.servers] == ["b"]
    assert [(item.name, keys) for item, keys in found.given_back] == [("a", ["weight"])]
    assert [item.name for item in found.taken_back] == ["c"]
    [other] = changes_since(state([]), state([SERVER], gone)).values()
    assert ([item.name for item in other.servers], [item.name for item in other.removed]) == (["a"], ["c"])
