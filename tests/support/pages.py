"""What the pages for users contain: blocks of code, commands, whole configs, and how they are tried out elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.build import ROOT
from tests.support.certificates import Authority

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
_BLOCK = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)(?P=fence) *$", re.M | re.S
)


@dataclass(frozen=True, slots=True)
class Block:
    line: int  # of the first line of its text
    info: str
    text: str


def blocks(page: str) -> list[Block]:
    """Every fenced block, without its indent. A block in a block is part of its text."""
    return [
        Block(
            page.count("\n", 0, block.start()) + 2,
            " ".join(block["info"].split()),
            re.sub(f"^{block['indent']}", "", block["text"], flags=re.M),
        )
        for block in _BLOCK.finditer(page)
    ]


def inline_code(page: str) -> list[str]:
    """The code in the prose and tables of a page; `\\|` is how a table writes a bar."""
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", _BLOCK.sub("", page))
    return [span.replace("\\|", "|") for span in spans]


def _headings(page: str) -> list[tuple[str, int]]:
    """The anchor of each heading, as GitHub makes it, and where the heading stands."""
    prose = _BLOCK.sub(lambda block: re.sub(r"[^\n]", " ", block[0]), page)
    found: list[tuple[str, int]] = []
    times: dict[str, int] = {}
    for heading in re.finditer(r"^#+ (.+?) *$", prose, re.M):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
        anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        times[anchor] = times.get(anchor, -1) + 1
        found.append((f"{anchor}-{times[anchor]}" if times[anchor] else anchor, heading.start()))
    return found


def anchors(page: str) -> list[str]:
    """What a link into the page can name behind its `#`."""
    return [anchor for anchor, _ in _headings(page)]


def sections(page: str) -> dict[str, str]:
    """The text from each heading up to the next one, by its anchor."""
    found = _headings(page)
    ends = [*(begin for _, begin in found[1:]), len(page)]
    return {anchor: page[begin:end] for (anchor, begin), end in zip(found, ends, strict=True)}


def place_certificates(text: str, authority: Authority) -> str:
    """The same config with its files /etc/lbproxy/* beside it, and all that it names made in the authority's folder.

    FILE.pem with FILE.key is a certificate for the names that the examples route, any other *.pem is a CA.
    """
    text = text.replace("/etc/lbproxy/", "")
    keys = set(re.findall(r"[\w.-]+(?=\.key\b)", text))
    for file in sorted(keys):
        authority.issue(file, "models.example.com", "*.models.example.com")
    for file in set(re.findall(r"[\w.-]+(?=\.pem\b)", text)) - keys:
        Authority(authority.directory, file)
    return text


def move_ports(text: str, ports: Mapping[int, int]) -> str:
    """The same text with other ports."""
    return re.sub(r"\b\d{4}\b", lambda found: str(ports.get(int(found[0]), found[0])), text)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))
