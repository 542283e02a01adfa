"""Every file ends in a config or in sentences: the largest example, mutated as hands, templates and disks do it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbproxy.config.loader import ConfigError, load_text
from tests.architecture.rules import ROOT

TEXT = (ROOT / "config/every-key.yaml").read_text()
LINES = TEXT.split("\n")
DATA: dict[str, Any] = yaml.load(TEXT, Loader=yaml.BaseLoader)
ENVIRON = {"LBPROXY_TOKEN": "t"}
SNIPPETS = (
    *(
        "\t",
        " ",
        "  ",
        "    ",
        "- ",
        "-",
        ":",
        ": ",
        ",",
        "[",
        "]",
        "{",
        "}",
        "'",
        '"',
        "#",
        "&a ",
        "*a",
        "!!int ",
        "|",
        ">",
    ),
    *(
        "${",
        "${A:-${B}}",
        "}",
        "\u00a0",
        "\u201c",
        "\x00",
        "\ufeff",
        "\r",
        "---\n",
        "...\n",
        "%",
        "@",
        "<<: ",
        "? ",
        "0",
        "-1",
    ),
    *(
        "null",
        "~",
        "true",
        "off",
        "1e999",
        ".nan",
        "9" * 30,
        "http://",
        "[::1]:80",
        "5003-5001",
        "é",
        "\U0001f600",
        "\u2028",
    ),
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(SNIPPETS),
    st.lists(st.sampled_from(["a:1", "/", "", "off", "x"]), max_size=2),
    st.dictionaries(st.sampled_from(["name", "address", "path", "bind", "on", "x"]), st.text(max_size=4), max_size=2),
)


def judge(text: str) -> None:
    """A config, or sentences that each have one line and point into the file."""
    try:
        problems = load_text(text, "lb.yaml", ENVIRON).warnings
    except ConfigError as error:
        problems = error.problems
        assert problems
    n_lines = text.count("\n") + text.count("\r") + text.count("\x85") + text.count("\u2028") + text.count("\u2029") + 1
    for problem in problems:
        assert 1 <= problem.line <= n_lines, problem
        assert problem.column >= 1
        assert problem.message.strip(), problem
        assert len(str(problem).splitlines()) == 1, problem
        assert "Traceback" not in problem.message and "Error(" not in problem.message


@st.composite
def mutated_text(draw: st.DrawFn) -> str:
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 4))):
        if not lines:  # the last one was deleted
            break
        at = draw(st.integers(0, len(lines) - 1))
        what = draw(st.sampled_from(["delete", "twice", "indent", "outdent", "insert", "cut", "swap", "end"]))
        line = lines[at]
        if what == "delete":
            del lines[at]
        elif what == "twice":
            lines.insert(at, line)
        elif what == "indent":
            lines[at] = draw(st.sampled_from([" ", "  ", "\t"])) + line
        elif what == "outdent":
            lines[at] = line[draw(st.integers(1, 3)) :]
        elif what == "insert":
            place = draw(st.integers(0, len(line)))
            lines[at] = line[:place] + draw(st.sampled_from(SNIPPETS)) + line[place:]
        elif what == "cut":
            place = draw(st.integers(0, len(line)))
            lines[at] = line[:place]
        elif what == "swap":
            other = draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
        else:
            lines = [*lines[:at], line[: draw(st.integers(0, len(line)))]]
    return "\n".join(lines)


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [place for key, inner in items for place in places(inner, (*path, key))]


PLACES = places(DATA)


@st.composite
def mutated_data(draw: st.DrawFn) -> dict[str, Any]:
    data = copy.deepcopy(DATA)
    for path in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=3)):
        parent: Any = data
        for part in path[:-1]:
            parent = parent[part] if isinstance(parent, dict) and part in parent else None
            if not isinstance(parent, (dict, list)) or (isinstance(parent, list) and len(parent) == 0):
                break
        if isinstance(parent, dict) and draw(st.integers(0, 9)) == 0:
            parent[draw(st.text(max_size=6))] = draw(VALUES)
        elif isinstance(parent, dict):
            parent[path[-1]] = draw(VALUES)
        elif isinstance(parent, list) and parent:
            parent[0] = draw(VALUES)
    return data


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(mutated_text())
def test_mutated_text(text: str) -> None:
    judge(text)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(mutated_data(), st.booleans())
def test_mutated_data(data: dict[str, Any], is_flow: bool) -> None:
    judge(yaml.safe_dump(data, default_flow_style=is_flow, allow_unicode=True))


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_every_snippet_as_a_whole_file(snippet: str) -> None:
    judge(snippet)
    judge(f"listeners: {snippet}\n")
    judge(f"listeners: [{snippet}]\npools: {{p: {snippet}}}\n")
    judge(f"pools:\n  p:\n    servers:\n      - {snippet}\nlisteners:\n  - bind: {snippet}\n    pool: p\n")
