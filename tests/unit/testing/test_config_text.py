"""What becomes of a user's config before it is run beside others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lbproxy.config.loader import load_text
from lbproxy.config.source import parse
from lbproxy.testing.config_text import moved, strangers, written

HERE = Path("/tmp/here")


def made(text: str, **servers: list[object]) -> dict[str, Any]:
    data: Any = parse(text, "lb.yaml", {}).data
    return moved(data, servers, HERE)


@pytest.mark.parametrize(
    ("bind", "name", "expected"),
    [
        (":80", "0.0.0.0:80", ["127.0.0.1:0"]),
        ("10.0.0.1:80", "10.0.0.1:80", ["127.0.0.1:0"]),
        ("unix:/run/lb.sock", "unix:/run/lb.sock", ["unix:/tmp/here/0-0.sock"]),
        ("[unix:/run/a, ':80', '[::]:80']", "unix:/run/a", ["127.0.0.1:0", "unix:/tmp/here/0-0.sock"]),
    ],
)
def test_a_listener_is_moved_and_keeps_its_name(bind: str, name: str, expected: list[str]) -> None:
    text = (
        f"listeners: [{{bind: {bind if bind[0] == '[' else repr(bind)}, pool: p}}]\npools: {{p: {{servers: ['a:1']}}}}"
    )
    [listener] = made(text)["listeners"]
    assert (listener["name"], listener["bind"], listener["pool"]) == (name, expected, "p")
    assert load_text(text, "lb.yaml", {}).config.listeners[0].name == name


def test_a_name_that_was_given_stays() -> None:
    [listener] = made("listeners: [{bind: ':80', name: web}]")["listeners"]
    assert listener["name"] == "web"


@pytest.mark.parametrize(
    ("admin", "expected"),
    [
        ("", {"bind": "127.0.0.1:0"}),
        ("admin: off", {"bind": "127.0.0.1:0"}),
        ("admin: {bind: ':8404', token: abc}", {"bind": "127.0.0.1:0", "token": "abc"}),
    ],
)
def test_the_admin_address_is_moved(admin: str, expected: object) -> None:
    assert made(f"a: b\n{admin}")["admin"] == expected


def test_the_access_log_is_a_file_of_the_test_unless_it_is_off() -> None:
    assert made("access_log: {path: /var/log/a, format: common}")["access_log"] == {
        "path": "/tmp/here/access.log",
        "format": "json",
    }
    assert made("access_log: off")["access_log"] == "off"


def test_the_state_file_is_one_of_the_test() -> None:
    """That of the config belongs to the lbproxy which runs with it: a test would overwrite what operators have set."""
    assert made("state_file: /var/lib/lbproxy/state.json")["state_file"] == "/tmp/here/state.json"
    assert made("state_file: off")["state_file"] == "off"
    assert "state_file" not in made("watch: true")


def test_servers_of_a_test_stand_for_every_source_of_servers() -> None:
    text = (
        "pools: {p: {servers: ['a:1'], servers_file: s.yaml, discovery: {kubernetes: {service: x}}, "
        "dns: {srv: _a._tcp.b, interval: 1s}}}"
    )
    assert made(text, p=["c:1"])["pools"] == {"p": {"dns": {"interval": "1s"}, "servers": ["c:1"]}}


def test_pools_that_neither_stand_in_the_config_nor_are_named_there_are_strange() -> None:
    text = "listeners: [{bind: ':1', routes: [{split: {a: 1, b: 2}}, {pool: c}]}]\npools: {d: {servers: ['a:1']}}"
    data: Any = parse(text, "lb.yaml", {}).data
    assert strangers(data, ["a", "b", "c", "d", "e"]) == ["e"]
    assert strangers({"listeners": 7, "pools": ["x"]}, ["x", "y"]) == ["x", "y"]


def test_servers_are_put_in_place_of_those_of_the_config() -> None:
    text = "pools: {p: {servers: ['a:1'], max_inflight: 3}, q: {servers: ['b:1']}}"
    assert made(text, p=["c:1", "d:1"], new=["e:1"])["pools"] == {
        "p": {"servers": ["c:1", "d:1"], "max_inflight": 3},
        "q": {"servers": ["b:1"]},
        "new": {"servers": ["e:1"]},
    }


def test_what_is_no_config_is_left_for_lbproxy_to_complain_of() -> None:
    assert made("listeners: 7\npools: [a]") == {
        "listeners": 7,
        "pools": ["a"],
        "admin": {"bind": "127.0.0.1:0"},
        "access_log": {"path": "/tmp/here/access.log", "format": "json"},
    }


def test_what_is_written_means_the_same() -> None:
    text = """\
a: {"on": 5:50, n: 007, v: 1.10, t: true, none: ~, s: "1.10", q: "x: \\"y\\" # z", u: "\\u20ac", v6: "[::1]:5"}
l: [1, -2.5, [], {}, "$${HOME}"]
"""
    document = parse(text, "lb.yaml", {})
    again = parse(written(document.data), "lb.yaml", {})
    assert again.data == document.data
    assert '"n": 007, "v": 1.10,' in written(document.data)
