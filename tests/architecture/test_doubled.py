"""Each scenario of the files that say so runs with two workers, or stands in a list with the reason why it does not."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.architecture import rules
from tests.support import doubled


@pytest.fixture(scope="module")
def tests() -> dict[str, set[str]]:
    """The ids of what pytest would run, by `file.py::function`."""
    files = [str(path) for pattern in doubled.FILES for path in sorted(rules.ROOT.glob(pattern))]
    assert len(files) > len(doubled.FILES)
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:xdist", *files],
        cwd=rules.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    cases: dict[str, set[str]] = {}
    for name, function, case in re.findall(r"(?m)^\S*?(test_\w+\.py)::(\w+)(.*)$", found.stdout):
        cases.setdefault(f"{name}::{function}", set()).add(case)
    return cases


def test_each_test_runs_with_two_workers_or_says_why_not(tests: dict[str, set[str]]) -> None:
    assert tests
    alone, several = doubled.NAMES
    for name, cases in tests.items():
        n_alone = sum(bool(re.search(rf"[\[-]{alone}[\]-]", case)) for case in cases)
        n_several = sum(bool(re.search(rf"[\[-]{several}[\]-]", case)) for case in cases)
        is_listed = name in doubled.ONCE or name.partition("::")[0] in doubled.ONCE
        assert (n_alone == n_several == len(cases) / 2) is not is_listed, name


def test_the_list_names_what_there_is_and_why(tests: dict[str, set[str]]) -> None:
    known = {name.partition("::")[0] for name in tests} | set(tests)
    assert set(doubled.ONCE) <= known, "remove the lines of what is gone"
    assert all(len(reason) > 5 for reason in doubled.ONCE.values())
