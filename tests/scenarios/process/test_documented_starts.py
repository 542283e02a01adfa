"""The messages in the first table of docs/troubleshooting.md are those of starts that really fail."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support import nursery
from tests.support.build import ROOT

# What makes each message come: settings over a config that would start. TAKEN is an address that is in use.
CAUSES: dict[str, dict[str, object]] = {
    "lb.yaml:3:5: listeners[0].pol: unknown key; did you mean pool?": {},  # a file of its own, below
    "...: the environment variable NAME is not set": {"admin": {"token": "${SET_BY_NOBODY}"}},
    "cannot listen on 0.0.0.0:5000: Address already in use": {"listeners": [{"bind": "TAKEN", "pool": "p"}]},
    "admin.bind: cannot listen on 127.0.0.1:8404: Address already in use": {"admin": {"bind": "TAKEN"}},
    "cannot listen on unix:...: No such file or directory": {
        "listeners": [{"bind": "unix:missing/a.sock", "pool": "p"}]
    },
    "cannot listen on ...: Cannot assign requested address": {"listeners": [{"bind": "192.0.2.1:0", "pool": "p"}]},
    "access_log.path: cannot open ...": {"access_log": {"path": "missing/a.log"}},
    "pools.p.strategy.python: strategy 'file.py:Class': ...": {
        "pools": {"p": {"servers": ["127.0.0.1:1"], "strategy": {"python": "file.py:Class"}}}
    },
}
# Shown by others: a right that root has does not fail (tests/scenarios/dataplane/net/test_unix_socket.py), and a
# package that is missing (tests/unit/demo).
ELSEWHERE = {"cannot listen on ...: Permission denied", "the demo needs flask and gunicorn"}
WRONG = "listeners:\n  - bind: 127.0.0.1:0\n    pol: p\npools: {p: {servers: ['127.0.0.1:1']}}\n"


def messages() -> list[str]:
    page = (ROOT / "docs/troubleshooting.md").read_text()
    table = page.partition("## lbproxy does not start\n")[2].partition("\n## ")[0]
    return re.findall(r"(?m)^\| `(.+?)` \|", table)


@pytest.fixture
def taken() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield f"127.0.0.1:{holder.getsockname()[1]}"


def test_every_message_of_the_page_has_its_cause_here() -> None:
    assert set(messages()) == CAUSES.keys() | ELSEWHERE


@pytest.mark.parametrize("message", CAUSES)
def test_a_message_of_the_page_comes_as_it_is_shown(message: str, taken: str, tmp_path: Path) -> None:
    usual = {
        "listeners": [{"bind": "127.0.0.1:0", "pool": "p"}],
        "pools": {"p": {"servers": ["127.0.0.1:1"]}},
        "admin": "off",
    }
    text = yaml.safe_dump({**usual, **CAUSES[message]}).replace("TAKEN", taken) if CAUSES[message] else WRONG
    (tmp_path / "lb.yaml").write_text(text)
    done = nursery.run(["lb.yaml"], tmp_path)
    said = re.escape(message).replace(re.escape("..."), ".*")
    said = said.replace("NAME", "SET_BY_NOBODY")
    said = re.sub(r"(0\\\.0\\\.0\\\.0:5000|127\\\.0\\\.0\\\.1:8404)", re.escape(taken), said)
    assert re.search(said, done.stderr), done.stderr
    assert done.returncode == (1 if "cannot" in message else 2)
