"""Variables inside values, and inside their own defaults."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.config import variables

ENVIRON = {"A": "a", "EMPTY": "", "PORT": "80"}


def read(text: str) -> tuple[str, list[str]]:
    told: list[str] = []
    made = variables.replaced(text, ENVIRON, lambda message, hint: told.append(f"{message}; {hint}"))
    return made, told


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("${A}", "a"),
        ("x${A}y${PORT}", "xay80"),
        ("${EMPTY}", ""),
        ("${EMPTY:-d}", "d"),
        ("${NO:-}", ""),
        ("${NO:-${A}}", "a"),
        ("${NO:-${NEITHER:-c}}", "c"),
        ("${NO:-h${NEITHER:-:}${PORT}}/x", "h:80/x"),
        ("${A:-${NOT_SET}}", "a"),
        ("$${A}", "${A}"),
        ("${NO:-$${A}}", "${A}"),
        ("${NO:-{x}", "{x"),
        ("$A $ } $$", "$A $ } $$"),
    ],
)
def test_what_is_replaced(text: str, made: str) -> None:
    assert read(text) == (made, [])


HOW = "write ${NAME} or ${NAME:-default}, or $${ for ${"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("${NO}", "the environment variable NO is not set; set it, or write ${NO:-default}"),
        ("${NO:-${NEITHER}}", "the environment variable NEITHER is not set; set it, or write ${NEITHER:-default}"),
        ("${}", f"'${{}}' holds ${{ without a variable; {HOW}"),
        ("${1}", f"'${{1}}' holds ${{ without a variable; {HOW}"),
        ("${A-x}", f"'${{A-x}}' holds ${{ without a variable; {HOW}"),
        ("${A", f"'${{A' holds ${{ without a variable; {HOW}"),
        ("${NO:-${A}", f"'${{NO:-${{A}}' holds ${{ without its }}; {HOW}"),
    ],
)
def test_what_is_refused(text: str, told: str) -> None:
    assert read(text)[1] == [told]


def test_depth_and_length_are_bounded() -> None:
    assert read("${N:-" * 8 + "x" + "}" * 8) == ("x", [])
    assert "more than 8 defaults" in read("${N:-" * 9 + "x" + "}" * 9)[1][0]
    assert "more than 8 defaults" in read("${N:-" * 100_000)[1][0]
    told: list[str] = []
    assert variables.replaced("${B}" * 100, {"B": "b" * 1000}, lambda message, _: told.append(message)) == ""
    assert told == ["is longer than 65536 characters once its variables are replaced"]


@given(st.text(alphabet="${}:-AN\\ ", max_size=40))
def test_any_text_ends_in_text_or_one_complaint(text: str) -> None:
    made, told = read(text)
    assert isinstance(made, str)
    assert len(told) <= 1
    if "${" not in text:
        assert (made, told) == (text, [])
