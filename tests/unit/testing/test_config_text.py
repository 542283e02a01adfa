"""What becomes of a user's config before it is run beside others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lbproxy.config.loader import load_text
from lbproxy.config.source import parse
from lbproxy.testing.config_text import moved, written

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
