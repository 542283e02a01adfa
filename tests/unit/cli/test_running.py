"""`check` goes as far as a start would without binding."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy import cli
from lbproxy.cli import running

Capture = pytest.CaptureFixture[str]


def test_numbers_of_things() -> None:
    assert [running.counted(number, "pool") for number in (0, 1, 2)] == ["0 pools", "1 pool", "2 pools"]


def checked(tmp_path: Path, more: str, pool: str = "") -> tuple[int, str]:
    path = tmp_path / "lb.yaml"
    path.write_text(f"listeners: [{{bind: ':1', pool: p}}]\npools: {{p: {{servers: ['a:1']{pool}}}}}\n{more}")
    return cli.main(["check", str(path)]), str(path)


@pytest.mark.parametrize(
    ("place", "reason"),
    [("missing/access.log", "there is no directory {tmp}/missing"), (".", "it is a directory")],
)
def test_check_looks_at_the_place_of_the_access_log(tmp_path: Path, place: str, reason: str, capsys: Capture) -> None:
    log = tmp_path / place
    status, path = checked(tmp_path, f"access_log: {{path: {log}}}")
    assert status == 2
    said = f"{path}: access_log.path: cannot open {log}: {reason.format(tmp=tmp_path)}\n"
    assert capsys.readouterr() == ("", said)


def test_check_does_not_make_the_access_log(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    assert checked(tmp_path, f"access_log: {{path: {log}}}")[0] == 0
    assert not log.exists()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("class Mine: pass", "the constructor must take (options, rng)"),
        ("import nothing_like_this", "there is no module"),
        ("1/0", "ZeroDivisionError"),
        ("def broken(:", "SyntaxError"),
        ("import sys; sys.exit(3)", "SystemExit"),
    ],
)
def test_check_imports_and_makes_strategies(tmp_path: Path, code: str, said: str, capsys: Capture) -> None:
    (tmp_path / "mine.py").write_text(code)
    status, path = checked(tmp_path, "", ", strategy: {python: 'mine.py:Mine'}")
    assert status == 2
    err = capsys.readouterr().err
    assert err.startswith(f"{path}: pool p: strategy ")
    assert "Traceback" not in err
    assert err.count("\n") == 1
    if said != "there is no module":
        assert said in err
