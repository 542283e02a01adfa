"""The docs agree with the repository: links, make targets, commands and their options."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from lbproxy import cli
from tests.architecture.rules import ROOT
from tests.support.pages import anchors

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
by_name = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def links(text: str) -> list[str]:
    """Targets of links to files, without fragments."""
    prose = re.sub(r"(?ms)^```.*?^```", "", text)
    targets = (target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", prose))
    return [target for target in targets if target and not re.match(r"[a-z]+:", target)]


def fragments(text: str) -> list[tuple[str, str]]:
    """Page ("" is this one) and anchor of links to a heading."""
    prose = re.sub(r"(?ms)^```.*?^```", "", text)
    targets = (target.partition("#") for target in re.findall(r"\]\(([^)\s]+)\)", prose))
    return [(page, anchor) for page, sign, anchor in targets if sign and not re.match(r"[a-z]+:", page)]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", text)


@by_name
def test_links_lead_somewhere(page: Path) -> None:
    assert [target for target in links(page.read_text()) if not (page.parent / target).exists()] == []


SAYING = [
    *PAGES,
    *(p for p in (ROOT / "lbproxy").rglob("*.py")),
    *(p for p in (ROOT / "deploy").rglob("*") if p.is_file()),
]


def test_extras_are_installed_in_quotes() -> None:
    """zsh takes `lbproxy[redis]` for a pattern, and installs nothing."""
    bare = re.compile(r"pip install [^'\"`\n]*\w\[\w")
    assert bare.search("`pip install lbproxy[redis]`") and not bare.search("`pip install 'lbproxy[redis]'`")
    assert [str(path.relative_to(ROOT)) for path in SAYING if bare.search(path.read_text(errors="replace"))] == []


def test_the_unit_says_how_to_install_from_what_there_is() -> None:
    """No index has lbproxy: a name alone would install whatever somebody calls so."""
    alone = re.compile(r"pip install lbproxy(?![\w\[-])(?!` alone)")
    assert [str(path.relative_to(ROOT)) for path in SAYING if alone.search(path.read_text(errors="replace"))] == []


@by_name
def test_links_to_headings_find_them(page: Path) -> None:
    found = {
        file: anchors((page.parent / file if file else page).read_text()) for file, _ in fragments(page.read_text())
    }
    assert [f"{file}#{anchor}" for file, anchor in fragments(page.read_text()) if anchor not in found[file]] == []


def test_the_link_rule_sees_a_dead_link() -> None:
    assert links("[a](b.md#c) [d](https://e) [f](#g)\n```\n[h](i)\n```\n") == ["b.md"]


@by_name
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    text = page.read_text()
    named = re.findall(r"`make ([a-z-]+)", text)
    for block in blocks(text, "sh"):
        named += re.findall(r"(?m)^make ([a-z-]+)", block)
    assert set(named) <= targets


def commands() -> dict[str, argparse.ArgumentParser]:
    [action] = [action for action in cli.build_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(action.choices)


def test_every_command_and_option_is_described() -> None:
    sections = dict(re.findall(r"(?ms)^## `lbproxy (\w+)`\n(.*?)(?=^## |\Z)", (ROOT / "docs/cli.md").read_text()))
    assert set(sections) == set(commands())
    shared = sections["status"]  # healthcheck takes the options of status
    for name, parser in commands().items():
        text = sections[name] + (shared if name == "healthcheck" else "")
        options = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
        assert [option for option in options if option != "--help" and option not in text] == [], name
