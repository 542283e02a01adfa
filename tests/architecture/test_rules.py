"""The rules hold for this repository, and each would notice a breach."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import hatch_build
from tests.architecture import rules

# Modules without a test file of their own. The list may only shrink: lower the number when a line goes.
WITHOUT_TESTS = {
    "lbproxy/__main__.py",  # three lines, run by every scenario
    "lbproxy/demo/gunicorn_settings.py",  # constants, read by gunicorn in tests/scenarios/demo
}
MOST_WITHOUT_TESTS = 2

# Modules that are called like one of the standard library all the same. This list may only shrink, too.
LIKE_THE_STANDARD_LIBRARY = {
    # The architecture names it so; modules inside the package are never on sys.path, so it hides nothing.
    "lbproxy/domain/queue.py",
}
MOST_LIKE_THE_STANDARD_LIBRARY = 1


def test_every_module_has_its_test_file() -> None:
    missing = []
    for path in rules.modules(rules.PACKAGE):
        module = path.relative_to(rules.ROOT)
        if path.name == "__init__.py" or module.as_posix() in WITHOUT_TESTS:
            continue
        places = rules.places_of_tests(module)
        if not any((rules.ROOT / place).exists() for place in places):
            missing.append(f"{module}: no {' or '.join(map(str, places))}")
    assert not missing, "\n".join(missing)


def test_the_list_of_exceptions_only_shrinks() -> None:
    assert len(WITHOUT_TESTS) <= MOST_WITHOUT_TESTS
    for name in WITHOUT_TESTS:
        assert (rules.ROOT / name).exists(), f"{name} is gone: remove its line"
        tested = [place for place in rules.places_of_tests(Path(name)) if (rules.ROOT / place).exists()]
        assert not tested, f"{name} has {tested[0]}: remove its line and lower the number"


def test_a_module_s_test_is_where_the_module_is() -> None:
    assert rules.places_of_tests(Path("lbproxy/domain/pool.py")) == [Path("tests/unit/domain/test_pool.py")]
    assert rules.places_of_tests(Path("lbproxy/_client.py")) == [Path("tests/unit/test_client.py")]
    assert rules.places_of_tests(Path("lbproxy/dataplane/exchange/relay.py")) == [
        Path("tests/unit/dataplane/exchange/test_relay.py"),
        Path("tests/scenarios/dataplane/exchange/test_relay.py"),
    ]


def test_no_module_is_called_like_one_of_the_standard_library() -> None:
    assert rules.shadows_stdlib(Path("lbproxy/domain/queue.py"))
    assert not rules.shadows_stdlib(Path("lbproxy/__main__.py"))
    found = {
        path.relative_to(rules.ROOT).as_posix() for path in rules.modules(rules.PACKAGE) if rules.shadows_stdlib(path)
    }
    assert found == LIKE_THE_STANDARD_LIBRARY, "rename what is new; remove the line of what is gone"
    assert len(LIKE_THE_STANDARD_LIBRARY) <= MOST_LIKE_THE_STANDARD_LIBRARY


def test_the_domain_has_no_endless_loop() -> None:
    assert rules.endless_loops(ast.parse("while True:\n    pass\nwhile 1:\n    pass\nwhile x:\n    pass")) == [1, 3]
    domain = rules.modules(rules.PACKAGE / "domain")
    assert domain
    assert rules.complaints(domain, "a loop without a condition", rules.endless_loops, "while") == []


def test_no_bare_except() -> None:
    assert rules.bare_excepts(ast.parse("try:\n    f()\nexcept:\n    pass\ntry:\n    f()\nexcept E:\n    pass")) == [3]
    everything = [path for name in ("lbproxy", "tests", "deploy") for path in rules.modules(rules.ROOT / name)]
    assert rules.complaints(everything, "an except without a type", rules.bare_excepts, r"except[\s\\]*:") == []


def test_tasks_are_started_by_their_owner_only() -> None:
    owned = "task_group.create_task(f())\ntasks.spawn(f())\n"
    assert rules.ownerless_tasks(ast.parse(owned)) == []
    ownerless = "asyncio.create_task(f())\nloop.create_task(f())\nensure_future(f())\n"
    assert rules.ownerless_tasks(ast.parse(ownerless)) == [1, 2, 3]
    others = [path for path in rules.modules(rules.PACKAGE) if path != rules.PACKAGE / "tasks.py"]
    complaint, mention = "a task without an owner; use lbproxy.tasks", "create_task|ensure_future"
    assert rules.complaints(others, complaint, rules.ownerless_tasks, mention) == []
    assert rules.ownerless_tasks(rules.parsed(rules.PACKAGE / "tasks.py")), "the rule no longer sees how tasks are made"


def test_an_error_has_a_name_for_each_type_where_it_is_compiled() -> None:
    two = "def f():\n try:\n  g()\n except A as error:\n  pass\n except B as {}:\n  pass\n"
    assert rules.reused_error_names(ast.parse(two.format("error"))) == [1]
    assert rules.reused_error_names(ast.parse(two.format("other"))) == []
    compiled = [rules.ROOT / name for name in hatch_build.compiled_sources()]
    assert compiled
    assert (
        rules.complaints(compiled, "one name for errors of different types", rules.reused_error_names, "except") == []
    )


def test_constants_are_final_where_they_are_compiled() -> None:
    found = "A_B = 1\n_C: int = 2\nD_E: Final = 3\nF_G: Final[int] = 4\nP = TypeVar('P')\nname = 5\n_lock = 6\n"
    assert rules.looked_up_constants(ast.parse(found)) == [1, 2]
    tuples = "H: Final[tuple[int, ...]] = (1,)\nI_J: Final = (1, 2)\nK_L, M = 1, 2\n"
    assert rules.looked_up_constants(ast.parse(tuples)) == [2, 3]
    compiled = [rules.ROOT / name for name in hatch_build.compiled_sources()]
    hot = [path for path in compiled if path != rules.PACKAGE / "errors.py"]  # a table that only failures read
    assert rules.complaints(hot, "a constant that is not Final", rules.looked_up_constants) == []


def test_long_modules_say_why_in_their_preface() -> None:
    body = "x = 1\n" * rules.SIZE_LIMIT_LINES
    assert rules.is_too_long('"""A preface."""\n' + body)
    assert not rules.is_too_long('"""This is longer than 600\nlines because ..."""\n' + body)
    assert not rules.is_too_long(body)
    assert [str(path) for path in rules.modules(rules.PACKAGE) if rules.is_too_long(path.read_text())] == []


def test_unit_tests_contain_no_sleep_no_socket_no_process() -> None:
    bad = "time.sleep(1)\nsocket.socket()\nsubprocess.run([])\nclock.sleep(1)"
    assert [line for line, _ in rules.blocking_names(ast.parse(bad))] == [1, 2, 3]
    unit = [path for path in rules.modules(rules.ROOT / "tests/unit") if path.name != "conftest.py"]
    assert unit
    named = [path for path in unit if re.search("sleep|socket|create_connection|subprocess", path.read_text())]
    found = [f"{path}:{line}: {name}" for path in named for line, name in rules.blocking_names(rules.parsed(path))]
    assert found == []


def test_no_comment_points_to_a_page_that_readers_do_not_have() -> None:
    """The reason stands where it is needed."""
    told = (
        "(reliability C1, C2)",
        "# row 61",
        "def test_row_12_x():",
        "rule R4",
        "see decisions.md",
        "a | A1 | b",
        "(T8, M1)",
    )
    assert [rules.pointers_outside(f"x = 1\n{text}\n") for text in told] == [[2]] * len(told)
    fine = (
        "RFC 9112 section 6.3, rule 6",
        "three rows",
        "row = 5",
        "T10 = 1",
        "semantics of PATCH",
        "reliability matters",
    )
    assert [rules.pointers_outside(text) for text in fine] == [[]] * len(fine)
    folders = ("lbproxy", "tests", "benchmarks", "deploy", "docs", "config")
    places = [path for name in folders for path in (rules.ROOT / name).rglob("*")]
    texts = [
        path
        for path in [*places, *rules.ROOT.glob("*.md"), *rules.ROOT.glob("*.py"), rules.ROOT / "Makefile"]
        if path.suffix in (".py", ".md", ".txt", ".yaml", ".yml", ".html", ".sh", "")
        and path.is_file()
        and "architecture" not in path.parent.parts
        and "out" not in path.parts
    ]
    assert len(texts) > 300
    found = [f"{path}:{line}" for path in texts for line in rules.pointers_outside(path.read_text())]
    assert found == []
