"""Every YAML block in the documentation that is a whole config loads; `yaml fragment` marks what is not one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lbproxy.config.loader import load_text

ROOT = Path(__file__).parents[2]
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))] if page.is_file()]
BLOCK = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)(?P=fence) *$", re.M | re.S
)


def blocks(page: str) -> list[tuple[int, str, str]]:
    """Line, info string and text of each YAML block. Other blocks are stepped over, not looked into."""
    found = []
    for block in BLOCK.finditer(page):
        info = " ".join(block["info"].split())
        if info.split(" ")[0] in ("yaml", "yml"):
            text = re.sub(f"^{block['indent']}", "", block["text"], flags=re.M)
            found.append((page.count("\n", 0, block.start()) + 2, info, text))
    return found


WHOLE = [
    pytest.param(text, f"{page.relative_to(ROOT)}+{line - 1}", id=f"{page.relative_to(ROOT)}:{line}")
    for page in PAGES
    for line, info, text in blocks(page.read_text())
    if info in ("yaml", "yml")
]


@pytest.mark.parametrize(("text", "name"), WHOLE)
def test_a_whole_config_in_the_documentation_loads(text: str, name: str) -> None:
    environ = dict.fromkeys(re.findall(r"(?<!\$)\$\{(\w+)\}", text), "1")
    assert [str(warning) for warning in load_text(text, name, environ).warnings] == []


def test_the_marks_are_the_two_that_are_known() -> None:
    marks = {info for page in PAGES for _, info, _ in blocks(page.read_text())}
    assert marks <= {"yaml", "yaml fragment"}
    assert WHOLE


def test_blocks_are_found_with_their_line_also_inside_lists() -> None:
    page = "a\n\n```yaml\nx: 1\n```\n\n- b\n\n  ```yaml fragment\n  y:\n    z: 2\n  ```\n"
    page += "\n````md\n```yaml\nno: 1\n```\n````\n"
    assert blocks(page) == [(4, "yaml", "x: 1\n"), (10, "yaml fragment", "y:\n  z: 2\n")]
