"""Tests can fail: none accepts two outcomes, checks nothing, or checks each of no files."""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from pathlib import Path

from tests.architecture import rules, weak_tests

TESTS = rules.modules(rules.ROOT / "tests")

# `assert a or b` that is meant so, by file and condition, each with the reason. The list may only shrink.
TWO_OUTCOMES = {
    ("tests/fuzz/test_running.py", "is_own or probe.status == 502"): (
        "bytes behind an answer may come before or after its connection was taken again; the kernel decides"
    ),
    ("tests/support/fake_transport.py", "transport.is_paused or transport.has_eof"): (
        "it refuses a wrong use of the helper, it judges no outcome"
    ),
}
MOST_TWO_OUTCOMES = 2


@dataclass(frozen=True, slots=True)
class Weak:
    """What the rules say of one file; its tree, of which there are hundreds, is not kept."""

    two_outcomes: list[tuple[int, str]]
    constant: list[int]
    nothing_checked: list[tuple[int, str]]
    maybe_no_files: list[int]


@functools.cache
def weak() -> dict[Path, Weak]:
    """By file, each read once for all rules. The last two are about files of tests."""
    found = {}
    for path in TESTS:
        tree, is_test = rules.parsed(path), path.name.startswith("test_")
        found[path] = Weak(
            weak_tests.either_or(tree),
            weak_tests.constant(tree),
            weak_tests.checking_nothing(tree) if is_test else [],
            weak_tests.maybe_empty(tree) if is_test else [],
        )
    return found


def either_or(source: str) -> list[str]:
    return [condition for _, condition in weak_tests.either_or(ast.parse(source))]


def test_no_assert_accepts_one_outcome_or_another() -> None:
    assert TESTS
    found = {
        (path.relative_to(rules.ROOT).as_posix(), condition): line
        for path, weakness in weak().items()
        for line, condition in weakness.two_outcomes
    }
    new = [f"{path}:{line}: {condition}" for (path, condition), line in found.items()]
    new = [text for text, key in zip(new, found, strict=True) if key not in TWO_OUTCOMES]
    assert new == [], "say which outcome is expected; write what depends on a condition as `if a: assert b`"
    assert set(TWO_OUTCOMES) <= set(found), "remove the lines of what is gone, and lower the number"
    assert len(TWO_OUTCOMES) <= MOST_TWO_OUTCOMES


def test_the_rule_about_outcomes_sees_every_spelling() -> None:
    assert either_or("assert a or b, 'message'") == ["a or b"]
    assert either_or("def test():\n if x:\n  assert not a or b == 1") == ["not a or b == 1"]
    assert either_or("assert c and (a or b)") == ["c and (a or b)"]
    assert either_or("assert all(a(i) or b(i) for i in c)") == ["all((a(i) or b(i) for i in c))"]
    assert either_or("assert any([i == 1 or b for i in c])") == ["any([i == 1 or b for i in c])"]
    assert either_or("assert f(a or b) == (c or d)\nif a or b:\n assert c and d\nassert all(i for i in a)") == []


def test_no_assert_is_of_a_constant() -> None:
    source = (
        "assert True\nassert (x, 'message')\nassert 'words'\nassert f'{x}'\nassert (i for i in x)\nassert lambda: x\n"
    )
    assert weak_tests.constant(ast.parse(source)) == [1, 2, 3, 4, 5, 6]
    assert weak_tests.constant(ast.parse("assert False\nassert x, 'message'\nassert (x)\nassert x == (1, 2)")) == []
    found = [f"{path}:{line}" for path, weakness in weak().items() for line in weakness.constant]
    assert found == [], "an assert that holds whatever happens"


def test_every_test_checks_something() -> None:
    found = [
        f"{path.relative_to(rules.ROOT)}:{line}: {name}"
        for path, weakness in weak().items()
        for line, name in weakness.nothing_checked
    ]
    assert found == [], "assert something, or say by the name of a helper that it does: check_, assert_, expect_, wait_"


def test_the_rule_about_checks_looks_through_helpers_of_the_module() -> None:
    def found(source: str) -> list[str]:
        return [name for _, name in weak_tests.checking_nothing(ast.parse(source))]

    assert found("def test_a():\n f()\nasync def test_b():\n await g()\ndef other():\n f()") == ["test_a", "test_b"]
    assert found("class TestIt:\n def test_c(self):\n  self.x.run()") == ["test_c"]
    assert found("def helper():\n print(1)\ndef test_d():\n helper()") == ["test_d"]
    assert found("def test():\n assert x") == []
    assert found("def test():\n with pytest.raises(E):\n  f()") == []
    assert found("def test():\n x.check_idle()") == []
    assert found("def deep():\n assert x\ndef helper():\n deep()\ndef test():\n helper()") == []


def test_nothing_is_checked_for_each_of_perhaps_no_files() -> None:
    found = [f"{path}:{line}" for path, weakness in weak().items() for line in weakness.maybe_no_files]
    assert found == [], "checks each of the files, of which there may be none: assert that there are some"


def test_the_rule_about_files_sees_loops_all_and_parameters() -> None:
    def found(*lines: str) -> list[int]:
        return weak_tests.maybe_empty(ast.parse("\n".join(lines)))

    assert found("def test():", " for path in ROOT.glob('*'):", "  assert path") == [2]
    assert found("def test():", " paths = sorted(ROOT.rglob('*'))", " for path in paths:", "  assert path") == [3]
    assert found("P = list(ROOT.iterdir())", "def test():", " for path in P:", "  assert path") == [3]
    assert found("def test():", " assert all(path.x for path in ROOT.iterdir())") == [2]
    assert found("@pytest.mark.parametrize('path', ROOT.glob('*'))", "def test(path):", " assert path") == [2]
    assert found("P = sorted(R.glob('*'))", "@mark.parametrize('p', P)", "def test(p):", " assert p") == [3]
    # Somebody looks whether there are any, or the loop checks nothing.
    assert found("P = list(R.glob('*'))", "assert P", "@mark.parametrize('p', P)", "def test(p):", " assert p") == []
    assert found("def test():", " p = list(R.glob('*'))", " assert len(p) > 3", " for x in p:", "  assert x") == []
    assert found("def test():", " for path in ROOT.glob('*'):", "  path.unlink()", " assert x") == []
