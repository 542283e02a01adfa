"""`check` goes as far as a start would without binding."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbproxy import cli
from tests.architecture.rules import ROOT

Capture = pytest.CaptureFixture[str]


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
    out, err = capsys.readouterr()
    place, _, said = err.partition(": ")
    assert (out, said) == ("", f"access_log.path: cannot open {log}: {reason.format(tmp=tmp_path)}\n")
    assert re.fullmatch(rf"{path}:\d+:20", place), "where its value stands"


def test_check_does_not_make_the_access_log(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    assert checked(tmp_path, f"access_log: {{path: {log}}}")[0] == 0
    assert not log.exists()


def test_check_reads_the_files_of_servers(tmp_path: Path, capsys: Capture) -> None:
    """One that is not there may come later; one that is wrong is wrong."""
    status, path = checked(tmp_path, "", ", servers_file: s.yaml")
    out, err = capsys.readouterr()
    missing = f"there is no file {tmp_path}/s.yaml yet; the pool has none of its servers until there is one"
    assert (status, out) == (0, f"{path}: ok (1 listener, 1 pool, 1 server)\n")
    assert re.fullmatch(rf"{path}:2:\d+: pools\.p\.servers_file: {re.escape(missing)} \(warning\)\n", err)
    (tmp_path / "s.yaml").write_text("- 127.0.0.1\n")
    assert checked(tmp_path, "", ", servers_file: s.yaml")[0] == 2
    assert capsys.readouterr() == ("", f"{tmp_path}/s.yaml:1:3: [0]: '127.0.0.1' has no port; write host:port\n")
    (tmp_path / "s.yaml").write_text("[10.0.0.1:80, 10.0.0.2:80]\n")
    assert checked(tmp_path, "", ", servers_file: s.yaml")[0] == 0
    assert capsys.readouterr() == (f"{path}: ok (1 listener, 1 pool, 3 servers)\n", "")


def test_check_reads_kubeconfigs_that_are_named(tmp_path: Path, capsys: Capture) -> None:
    more = ", discovery: {kubernetes: {service: a, kubeconfig: k8s.yaml}}"
    status, path = checked(tmp_path, "", more)
    place = r":2:\d+: pools\.p\.discovery\.kubernetes\.kubeconfig: "
    assert status == 0
    told = re.escape(f"{tmp_path}/k8s.yaml: No such file or directory (warning)\n")
    assert re.fullmatch(path + place + told, capsys.readouterr().err)
    (tmp_path / "k8s.yaml").write_text("""
current-context: m
contexts: [{name: m, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://k8s"}}]
users: [{name: u, user: {exec: {command: aws}}}]
""")
    assert checked(tmp_path, "", more)[0] == 2
    assert re.match(
        path + place + r".*k8s\.yaml: user u has `exec`, which lbproxy does not do", capsys.readouterr().err
    )
    assert checked(tmp_path, "", ", discovery: {kubernetes: {service: a}}")[0] == 0
    assert capsys.readouterr().err == ""


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
    assert re.match(rf"{path}:\d+:\d+: pools\.p\.strategy\.python: strategy 'mine.py:Mine'", err)
    assert "Traceback" not in err
    assert err.count("\n") == 1
    if said != "there is no module":
        assert said in err


FILES = [(ROOT / "config" / name).read_text().split("\n") for name in ("flask.yaml", "tcp.yaml", "minimal.yaml")]
PIECES = (
    "",
    " ",
    "\t",
    "- ",
    ":",
    "[",
    "{",
    "'",
    "off",
    "-1",
    "${X:-1}",
    "é",
    "\x00",
    "{python: x.py:Y}",
    "a\nb: c",
    "/",
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 40), st.sampled_from(PIECES)), min_size=1, max_size=4),
)
def test_check_ends_in_ok_or_in_sentences_whatever_the_file(
    lines: list[str], changes: list[tuple[int, int, str]]
) -> None:
    changed = list(lines)
    for at, place, piece in changes:
        line = changed[at % len(changed)]
        changed[at % len(changed)] = line[:place] + piece + line[place + len(piece) :]
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(changed).encode())))
        status = cli.main(["check", "-"])
    assert status in (0, 2), err.getvalue()
    assert out.getvalue().startswith("<stdin>: ok (") == (status == 0)
    assert all(line.startswith("<stdin>") for line in err.getvalue().split("\n") if line), err.getvalue()
