from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.config.nodes import Place
from lbproxy.config.problems import ConfigError
from lbproxy.config.source import Document, parse


def document(text: str, **environ: str) -> Document:
    return parse(text, "lb.yaml", environ)


def said(text: str, **environ: str) -> list[str]:
    try:
        return [str(problem) for problem in document(text, **environ).problems]
    except ConfigError as error:
        return [str(problem) for problem in error.problems]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("true", True),
        ("False", False),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("n", "n"),
        ("5:50", "5:50"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("-7", -7),
        ("1_000", "1_000"),
        ("0b1", "0b1"),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("2.", 2.0),
        ("2001-01-01", "2001-01-01"),
        ("=", "="),
        ("'5'", "5"),
        ('"true"', "true"),
        ("!!str 5", "5"),
        ("! 5", "5"),
        ("!!int '5'", 5),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_scalars_follow_the_core_schema(written: str, value: object) -> None:
    data = document(f"a: {written}\n").data
    assert data == {"a": value}
    assert isinstance(data, dict)
    assert isinstance(data["a"], type(value))


def test_not_a_number_is_a_float() -> None:
    data = document("a: .nan\n").data
    assert isinstance(data, dict)
    assert math.isnan(data["a"])


def test_a_key_is_its_text() -> None:
    assert document("on: 1\n5: 2\nno: {null: 3, ~: 4, '': 5}\n").data == {
        "on": 1,
        "5": 2,
        "no": {"null": 3, "~": 4, "": 5},
    }


def test_places_of_keys_and_values() -> None:
    made = document("a:\n  - b: 1\n    c: [x, y]\n")
    assert made.keys["a", 0, "c"] == Place(3, 5)
    assert made.values["a", 0, "c", 1] == Place(3, 12)
    assert made.values["a", 0] == Place(2, 5)
    assert made.place(("a", 0, "zzz")) == Place(2, 5)
    assert made.place(("a", "zzz")) == Place(1, 1)
    assert made.place(("a", 0, "c"), at_key=True) == Place(3, 5)
    assert made.place(("zzz", 1, "y")) == Place(1, 1)


def test_an_alias_stands_for_the_value_and_points_to_it() -> None:
    made = document("a: &x {b: 1}\nc: *x\nd: [*x, *x]\n")
    assert made.data == {"a": {"b": 1}, "c": {"b": 1}, "d": [{"b": 1}, {"b": 1}]}
    assert made.values["d", 1, "b"] == Place(1, 11)


def test_variables() -> None:
    text = (
        "a: ${HOST}:${PORT}\nb: ${PORT}\nc: '${PORT}'\nd: ${NO:-7}\ne: ${EMPTY:-x y}\nf: $${PORT}\ng: $PORT ${NO:-}.\n"
    )
    assert document(text, HOST="h", PORT="80", EMPTY="").data == {
        "a": "h:80",
        "b": 80,
        "c": "80",
        "d": 7,
        "e": "x y",
        "f": "${PORT}",
        "g": "$PORT .",
    }


def test_variables_are_not_replaced_twice_and_never_add_structure() -> None:
    assert document("a: ${X}\n", X="${Y}").data == {"a": "${Y}"}
    assert document("a: ${X}\n", X="{b: 1}\nc: 2").data == {"a": "{b: 1}\nc: 2"}
    assert document("a: ${X}\n", X="true").data == {"a": True}


def test_variables_in_keys_are_left_alone() -> None:
    assert document("${X}: 1\n", X="b").data == {"${X}": 1}


def test_a_problem_is_reported_for_every_variable() -> None:
    assert said("a: ${X}\nb: [1, '${Y}']\n") == [
        "lb.yaml:1:4: a: the environment variable X is not set; set it, or write ${X:-default}",
        "lb.yaml:2:8: b[1]: the environment variable Y is not set; set it, or write ${Y:-default}",
    ]


def test_duplicate_keys_are_reported_each_and_the_first_counts() -> None:
    made = document("a: 1\n'a': 2\nb: {c: 1, c: 2, c: 3}\n")
    assert made.data == {"a": 1, "b": {"c": 1}}
    assert [(problem.line, problem.column, problem.path) for problem in made.problems] == [
        (2, 1, "a"),
        (3, 11, "b.c"),
        (3, 17, "b.c"),
    ]


def test_an_alias_bomb_is_refused_before_it_is_expanded() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    (only,) = said("\n".join(lines))
    assert only.endswith("the file has more than 10000 nodes, aliases expanded")
    assert only.startswith("lb.yaml:4:")


def test_the_number_of_nodes_is_limited() -> None:
    assert document("a: [" + "1, " * 9990 + "]\n").problems == []
    assert said("a: [" + "1, " * 10000 + "]\n") == [
        "lb.yaml:1:30002: the file has more than 10000 nodes, aliases expanded"
    ]


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{a: " * 50_000, "- " * 50_000 + "x", "? " * 50_000 + "x"], ids=["[", "{", "-", "?"]
)
def test_deep_nesting_is_a_problem_and_no_crash(text: str) -> None:
    (only,) = said(text)
    assert "is nested more than 64 levels deep" in only


def test_aliases_add_to_the_depth() -> None:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 70)]
    (only,) = said("\n".join(lines))
    assert "nested more than 64 levels deep, aliases expanded" in only


def test_text_above_the_limit_is_refused() -> None:
    assert said("#" * (1 << 20) + "\na: 1") == ["lb.yaml:1:1: the file is larger than 1 MiB"]


@given(st.text(alphabet="ab:-[]{}\"'#&*!|> \n\t${}?,%@`~0.1é\x07", max_size=60))
def test_any_text_gives_a_document_or_problems(text: str) -> None:
    try:
        made = parse(text, "lb.yaml", {"a": "1"})
    except ConfigError as error:
        assert error.problems
        assert all(problem.line >= 1 and problem.column >= 1 for problem in error.problems)
    else:
        assert made.values[()].line >= 1
