"""What `lbproxy test` prints, and its exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy import cli

Capture = pytest.CaptureFixture[str]
CONFIG = "listeners: [{bind: ':1', pool: p}]\npools: {p: {servers: ['a:1', 'b:1']}}\n"


def outcome_of(folder: Path, tests: str, *words: str) -> tuple[int, str]:
    path = folder / "lb.yaml"
    path.write_text(CONFIG + tests)
    return cli.main(["test", str(path), *words]), str(path)


def test_all_is_well(tmp_path: Path, capsys: Capture) -> None:
    status, path = outcome_of(tmp_path, "tests: [{request: /, expect: {pool: p}}, {request: /x, expect: {route: 0}}]")
    assert (status, *capsys.readouterr()) == (0, f"{path}: ok (2 tests)\n", "")


def test_each_failure_is_a_line_in_the_order_of_the_file(tmp_path: Path, capsys: Capture) -> None:
    tests = "tests:\n- {request: /, expect: {pool: p}}\n- {request: /, expect: {server: 'a:1', path: /y, route: 0}}"
    status, path = outcome_of(tmp_path, tests)
    story = "GET /, route 0, pool p, goes to a:1 or b:1"
    said = (
        f"{path}:5:33: tests[1].expect.server: expected a:1, got a:1 or b:1; {story}\n"
        f"{path}:5:46: tests[1].expect.path: expected /y, got /; {story}\n"
        f"{path}: 1 of 2 tests failed\n"
    )
    assert (status, *capsys.readouterr()) == (1, "", said)


def test_verbose_says_what_came_of_each(tmp_path: Path, capsys: Capture) -> None:
    tests = "tests: [{name: n, request: POST /, expect: {pool: p}}, {request: /x, expect: {pool: none}}]"
    status, _ = outcome_of(tmp_path, tests, "-v")
    assert status == 1
    assert capsys.readouterr().out == (
        "ok: n: POST /, route 0, pool p, goes to a:1 or b:1\nfailed: GET /x, route 0, pool p, goes to a:1 or b:1\n"
    )


@pytest.mark.parametrize(
    ("tests", "said"),
    [
        ("", "lbproxy test: {path} has no `tests`"),
        ("tests: [{request: /, expect: {pool: q}}]", "{path}:3:37: tests[0].expect.pool: there is no pool q; pools: p"),
    ],
)
def test_without_tests_or_with_mistakes_nothing_is_tried(
    tests: str, said: str, tmp_path: Path, capsys: Capture
) -> None:
    status, path = outcome_of(tmp_path, tests)
    assert (status, *capsys.readouterr()) == (2, "", said.format(path=path) + "\n")


def test_a_strategy_that_cannot_be_made(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "lb.yaml"
    text = CONFIG.replace("servers:", "strategy: {python: 'mine.py:Mine'}, servers:")
    path.write_text(text + "tests: [{request: /, expect: {pool: p}}]")
    assert cli.main(["test", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"{path}:2:32: pools.p.strategy.python: strategy 'mine.py:Mine'")


def test_a_file_must_be_named(capsys: Capture) -> None:
    assert cli.main(["test"]) == 2
    assert capsys.readouterr().err == "lbproxy test: say which file: lbproxy test FILE\n"
