"""Whatever stands in a file, the answer is a config or sentences for a user, never the words of a library."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.config.loader import ConfigError, load_text
from lbproxy.config.sections import available_fields, available_sections
from lbproxy.config.validation import closest

JARGON = (
    "Input should",
    "valid dict",
    "pydantic",
    "Extra inputs",
    "Field required",
    "Traceback",
    "<class",
    "is not valid here",
)

KEYS = sorted({name for path, section in available_sections() for name, _ in available_fields(section, path)})
KEYS += ["listeners", "pools", "workers", "p", "tls", "queue"]
SCALARS = st.one_of(
    st.sampled_from(
        [
            "off",
            "on",
            "p",
            "5s",
            "64KiB",
            ":80",
            "a:1",
            "127.0.0.1:5001-5003",
            "unix:/a",
            "/x",
            "GET",
            "tcp",
            "http",
            "",
        ]
    ),
    st.integers(-5, 70000),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)),
    max_leaves=12,
)
SECTION = st.dictionaries(st.sampled_from(KEYS), TREES, max_size=5)
FILES = st.fixed_dictionaries(
    {
        "listeners": st.one_of(TREES, st.lists(SECTION, max_size=3)),
        "pools": st.one_of(TREES, st.dictionaries(st.sampled_from(["p", "q"]), SECTION, max_size=2)),
    },
    optional={"admin": TREES, "access_log": TREES, "limits": TREES, "shutdown": TREES, "trusted_proxies": TREES},
)


@given(FILES)
def test_any_data_gives_a_config_or_plain_sentences(data: dict[str, object]) -> None:
    try:
        load_text(json.dumps(data), "lb.yaml", {})
    except ConfigError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.line >= 1
            assert not [word for word in JARGON if word in str(problem)], str(problem)
            assert "\n" not in str(problem)


def test_closest() -> None:
    assert closest("Round-Robin", ["random", "round_robin"]) == "round_robin"
    assert closest("zzz", ["random"]) is None


def test_a_complaint_has_one_line_whatever_was_written() -> None:
    text = "pools: {p: {servers: ['a:1'], retry: {on: \"a\\rb\"}}}\nlisteners: [{bind: ':1', pool: p}]\n"
    with pytest.raises(ConfigError) as raised:
        load_text(text, "lb.yaml", {})
    assert str(raised.value) == "lb.yaml:1:43: pools.p.retry.on: expected a list, got 'a\\rb'"
