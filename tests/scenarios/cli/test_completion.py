"""Completion in real shells, with the names that a running lbproxy has."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.scenarios.cli.test_commands import lbproxy
from tests.scenarios.control.test_pools_api import config
from tests.support.daemon import LbProxy
from tests.support.origin import Origin
from tests.support.servers import needed

# What bash does when somebody presses the tabulator behind a line.
TRY = """
source ./script
for line in {lines}; do
    COMP_LINE=$line COMP_POINT=${{#line}} COMPREPLY=()
    _lbproxy
    printf '%s\\n' "${{COMPREPLY[*]}}"
done
"""


def completed(folder: Path, admin: str, lines: Sequence[str]) -> list[str]:
    """What bash would offer behind each of these lines."""
    (folder / "script").write_text(lbproxy("completion", "bash", cwd=folder).stdout)
    text = TRY.format(lines=" ".join(shlex.quote(line) for line in lines))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "LBPROXY_ADMIN": admin}
    done = subprocess.run(
        ["bash", "--norc", "-c", text], capture_output=True, text=True, cwd=folder, env=env, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split("\n")[:-1]


def test_bash_completes_commands_options_files_and_names(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "lb.yaml").touch()
    (folder / "lb two.yaml").touch()
    odd = folder / "a $b.sock"
    with Origin() as a, Origin(path=str(odd)) as b, LbProxy(config(a.address, b.address), tmp_path / "lb") as lb:
        port = lb.port("admin")
        a_port = a.address.rpartition(":")[2]
        expected = {
            "lbproxy dr": "drain",
            "lbproxy lb": "lb two.yaml lb.yaml",
            "lbproxy check lb.": "lb.yaml",
            "lbproxy run --config=lb.": "lb.yaml",
            "lbproxy drain --al": "--all-but",
            "lbproxy drain predict/127": f"predict/{a.address}",
            f"lbproxy drain predict/127.0.0.1:{a_port[:2]}": a_port,  # bash has what stands before the colon
            f"lbproxy limit predict/{a.address} o": "off",
            "lbproxy drain predict/unix:": str(odd).replace(" ", "\\ ").replace("$", "\\$"),
            "lbproxy add p": "predict/",
            "lbproxy explain --listener ": "in",
            "lbproxy run --strategy=pe": "peak_ewma",
            "lbproxy run --mode ": "http tcp",
            "lbproxy status --timeout ": "",
            f"lbproxy drain --admin 127.0.0.1:{port} predict/127": f"predict/{a.address}",
        }
        assert dict(zip(expected, completed(folder, f"127.0.0.1:{port}", [*expected]), strict=True)) == expected
        typed = [f"lbproxy drain --admin 127.0.0.1:{port} predict/127", "lbproxy drain pre", "lbproxy drain --wa"]
        assert completed(folder, "127.0.0.1:1", typed) == [f"predict/{a.address}", "", "--wait"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_has_no_slip(shell: str, tmp_path: Path) -> None:
    program = needed(shell)
    (tmp_path / "script").write_text(lbproxy("completion", shell, cwd=tmp_path).stdout)
    done = subprocess.run([program, "-n", "script"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_names_of_nobody_are_none(tmp_path: Path) -> None:
    done = lbproxy("completion", "servers", "--admin", "127.0.0.1:1", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
