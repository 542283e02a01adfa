"""docs/grpc.md: its example works as it stands there, but for the ports."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import yaml

from tests.support.build import ROOT
from tests.support.daemon import LbProxy
from tests.support.programs import started

PAGE = ROOT / "docs" / "grpc.md"


def block(language: str, beginning: str) -> str:
    """The block of the page that begins so."""
    found = re.findall(rf"```{language}\n({re.escape(beginning)}.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def test_the_example_of_the_page(tmp_path: Path) -> None:
    server, client = tmp_path / "server.py", tmp_path / "client.py"
    server.write_text(block("python", "# server.py"))
    config = yaml.safe_load(block("yaml", "listeners:\n  - bind: 127.0.0.1:9000"))
    with contextlib.ExitStack() as stack:
        ports = [
            stack.enter_context(started(lambda port: [sys.executable, str(server), str(port)], tmp_path, name))[1]
            for name in ("one", "two")
        ]
        config["listeners"][0].update(name="in", bind="127.0.0.1:0")
        config["pools"]["greeters"]["servers"] = [f"127.0.0.1:{port}" for port in ports]
        lb = stack.enter_context(LbProxy(config, tmp_path / "lb"))
        client.write_text(block("python", "# client.py").replace("9000", str(lb.port("in"))))
        said = subprocess.run([sys.executable, str(client)], capture_output=True, text=True, timeout=120, check=True)
        lines = said.stdout.splitlines()
        assert sorted(lines) == sorted([f"hello you from {port}" for port in ports] * 2)
        assert lines[0] != lines[1]
