"""How lbproxy is started again, from what was typed."""

from __future__ import annotations

import pytest

from lbproxy.process.upgrade.command import COMMAND, command

PYTHON = "/opt/1/bin/python3"
SCRIPT = "/usr/local/bin/lbproxy"


@pytest.mark.parametrize(
    ("original", "script", "expected"),
    [
        # The script is run by itself: it may name another interpreter by now.
        ([PYTHON, SCRIPT, "run", "-c", "lb.yaml"], SCRIPT, [SCRIPT, "run", "-c", "lb.yaml"]),
        ([PYTHON, "-P", SCRIPT, "lb.yaml"], SCRIPT, [SCRIPT, "lb.yaml"]),
        ([PYTHON, "-m", "lbproxy", "-c", "lb.yaml"], "/opt/1/lib/lbproxy/__main__.py", None),
        ([PYTHON, "-c", "main()", "-c", "lb.yaml"], "-c", None),
        ([SCRIPT, "lb.yaml"], SCRIPT, None),  # one file that brings its interpreter
    ],
)
def test_what_was_typed_is_found_anew(original: list[str], script: str, expected: list[str] | None) -> None:
    assert command(original, script, {}, lambda path: path == SCRIPT) == (expected or original)


def test_a_script_that_can_t_be_run_by_itself_gets_the_interpreter() -> None:
    words = [PYTHON, "lbproxy.py", "lb.yaml"]
    assert command(words, "lbproxy.py", {}, lambda path: False) == words


@pytest.mark.parametrize(
    ("original", "script"),
    [
        ([PYTHON, SCRIPT, "-c", "lb.yaml"], SCRIPT),
        ([PYTHON, "-m", "lbproxy", "-c", "lb.yaml"], "/opt/1/lib/lbproxy/__main__.py"),
        ([PYTHON, "-c", "main()", "-c", "lb.yaml"], "-c"),
    ],
)
def test_a_wrapper_can_be_named(original: list[str], script: str) -> None:
    told = command(original, script, {COMMAND: "'/srv/my wrapper' --fast"}, lambda path: True)
    assert told == ["/srv/my wrapper", "--fast", "-c", "lb.yaml"]


def test_a_wrapper_that_is_no_words_is_refused() -> None:
    with pytest.raises(ValueError, match="LBPROXY_COMMAND"):
        command([PYTHON, SCRIPT], SCRIPT, {COMMAND: "'open"})
