"""Every YAML block in the documentation that is a whole config loads; `yaml fragment` marks a part of one, which the
tests of its page complete, and `yaml manifest` a part of what Kubernetes reads.
"""

from __future__ import annotations

import re

import pytest

from lbproxy.config.loader import load_text
from tests.support.pages import PAGES, blocks, name


def yaml_blocks(page: str) -> list[tuple[int, str, str]]:
    """Line, info string and text of each YAML block. Other blocks are stepped over, not looked into."""
    return [(item.line, item.info, item.text) for item in blocks(page) if item.info.split(" ")[0] in ("yaml", "yml")]


WHOLE = [
    pytest.param(text, f"{name(page)}+{line - 1}", id=f"{name(page)}:{line}")
    for page in PAGES
    for line, info, text in yaml_blocks(page.read_text())
    if info in ("yaml", "yml")
]


@pytest.mark.parametrize(("text", "file"), WHOLE)
def test_a_whole_config_in_the_documentation_loads(text: str, file: str) -> None:
    environ = {name: str(n) for n, name in enumerate(re.findall(r"(?<!\$)\$\{(\w+)\}", text), start=1)}
    assert [str(warning) for warning in load_text(text, file, environ).warnings] == []


def test_the_marks_are_those_that_are_known() -> None:
    marks = {info for page in PAGES for _, info, _ in yaml_blocks(page.read_text())}
    assert marks == {"yaml", "yaml fragment", "yaml manifest"}
    assert WHOLE


def test_manifests_are_on_no_page_but_that_of_kubernetes() -> None:
    """Its tests compare them with what the chart makes; nothing would execute one elsewhere."""
    pages = {name(page) for page in PAGES for _, info, _ in yaml_blocks(page.read_text()) if info == "yaml manifest"}
    assert pages == {"docs/kubernetes.md"}


def test_blocks_are_found_with_their_line_also_inside_lists() -> None:
    page = "a\n\n```yaml\nx: 1\n```\n\n- b\n\n  ```yaml fragment\n  y:\n    z: 2\n  ```\n"
    page += "\n````md\n```yaml\nno: 1\n```\n````\n"
    assert yaml_blocks(page) == [(4, "yaml", "x: 1\n"), (10, "yaml fragment", "y:\n  z: 2\n")]
