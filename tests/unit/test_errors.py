"""The fault table: its page is what the code prints, and a user finds every word explained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lbproxy import errors

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_what_the_code_prints() -> None:
    assert (DOCS / "faults.md").read_text().endswith("\n\n" + errors.markdown_table())


def test_every_fault_is_explained_with_its_status() -> None:
    """A row of the troubleshooting page names the words in its first cell; its section or a cell has the status."""
    found: dict[str, str] = {}
    section = ""
    for line in (DOCS / "troubleshooting.md").read_text().splitlines():
        if line.startswith("## "):
            section = line
        elif line.startswith("| `"):
            cells = line.split(" | ")
            status = re.search(r"\b[45]\d\d\b", cells[1] if re.fullmatch(r"[45]\d\d", cells[1]) else section)
            found |= dict.fromkeys(re.findall(r"`(\w+)`", cells[0]), status[0] if status else "")
    assert {word: found.get(word) for word in errors.FAULTS} == {
        word: str(fault.status) for word, fault in errors.FAULTS.items()
    }


@pytest.mark.parametrize("fault", errors.FAULTS.values(), ids=lambda fault: fault.word)
def test_a_fault_tells_what_to_do_and_says_who_is_to_blame_once(fault: errors.Fault) -> None:
    assert fault.hint.endswith((".", "?"))
    if fault.blames or fault.retry is not errors.Retry.NEVER:
        assert fault.side is errors.Side.UPSTREAM
    assert (fault.metric == "") == (fault.word in ("tunnel_timeout", "shutdown"))
