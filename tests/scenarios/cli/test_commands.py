"""The installed command as it is typed: files with and without their option, standard input, a check as a rehearsal."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support import build, nursery

GOOD = "listeners: [{bind: '127.0.0.1:0', pool: p}]\npools: {p: {servers: ['127.0.0.1:5001-5003']}}\n"


def lbproxy(*words: str, cwd: Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """What the command does; that it starts is seen by those tests that start it."""
    return nursery.run(words, cwd, given=given)


def typed(*words: str, cwd: Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """The same with a start of its own, which takes half a second of CPU."""
    return subprocess.run(
        [*build.COMMAND, *words], input=given, capture_output=True, text=True, cwd=cwd, timeout=60, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "lb.yaml").write_text(GOOD)
    return tmp_path


@pytest.mark.parametrize("words", [["check", "lb.yaml"], ["check", "-c", "lb.yaml"], ["check", "-"]])
def test_check_finds_the_file(words: list[str], folder: Path) -> None:
    done = typed(*words, cwd=folder, given=GOOD)
    name = "<stdin>" if "-" in words else "lb.yaml"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{name}: ok (1 listener, 1 pool, 3 servers)\n", "")


@pytest.mark.parametrize("words", [["lb.yaml"], ["run", "lb.yaml"], ["-c", "lb.yaml"], ["run", "-"]])
def test_run_takes_the_file(words: list[str], folder: Path) -> None:
    """It is told apart from bad usage by what the file says: a log that cannot be opened ends the start with 1."""
    text = GOOD + "access_log: {path: missing/a.log}\nadmin: {bind: off}\n"
    (folder / "lb.yaml").write_text(text)
    done = lbproxy(*words, cwd=folder, given=text)
    assert done.returncode == 1
    assert re.search(r"cannot start: \S+:\d+:20: access_log.path: cannot open missing/a.log: No such file", done.stderr)


def test_a_plug_in_that_a_start_would_refuse_is_refused_by_check(folder: Path) -> None:
    (folder / "mine.py").write_text("class Mine:\n    def __init__(self):\n        pass\n")
    (folder / "lb.yaml").write_text(GOOD.replace("servers:", "strategy: {python: 'mine.py:Mine'}, servers:"))
    done = lbproxy("check", "lb.yaml", cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    place, reason = r"lb.yaml:\d+:\d+: pools.p.strategy.python", r"the constructor must take \(options, rng\)"
    told = f"{place}: strategy 'mine.py:Mine': {reason}"
    assert re.match(told, done.stderr)
    started = lbproxy("lb.yaml", cwd=folder)
    assert started.returncode == 2
    assert re.search(f"cannot start: {told}", started.stderr)


def test_options_print_the_file_that_they_stand_for(tmp_path: Path) -> None:
    words = ["--to", ":5001", "--strategy", "round_robin", "--health", "/h", "--slots", "4", "--mode", "http"]
    printed = lbproxy("run", *words, "--bind", ":0", "--admin", "off", "--print", cwd=tmp_path)
    assert (printed.returncode, printed.stderr) == (0, "")
    assert "strategy: round_robin" in printed.stdout
    done = lbproxy("check", "-", cwd=tmp_path, given=printed.stdout)
    assert (done.returncode, done.stdout) == (0, "<stdin>: ok (1 listener, 1 pool, 1 server)\n")


@pytest.mark.parametrize("words", [["schema"], ["--version"], ["--help"], ["check", "lb.yaml"]])
def test_a_full_disk_is_a_sentence(words: list[str], folder: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*build.COMMAND, *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("cannot write to standard output: No space left on device\n")


def test_a_reader_who_left_is_told_nothing(folder: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", '"$@" | true; exit ${PIPESTATUS[0]}', "bash", *build.COMMAND, "schema"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
