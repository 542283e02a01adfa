from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from lbproxy.config.manual import config_markdown
from lbproxy.config.model import Config
from lbproxy.config.sections import available_fields, available_sections

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"

EVERY_SECTION: list[tuple[str, type[BaseModel]]] = [("", Config), *available_sections()]


def test_the_page_is_what_the_models_say() -> None:
    assert PAGE.read_text() == config_markdown(), "run: python -m lbproxy.config.manual > docs/configuration.md"


def test_every_key_has_a_row_in_its_section() -> None:
    for path, section in EVERY_SECTION:
        named = path.replace("pools.*", "pools.NAME").replace("tokens.*", "tokens.NAME")
        heading = named.replace(".*", "[]")
        title = f"`{heading}`\n" if heading else "## Top level\n"
        text = config_markdown().split(title, 1)[1].split("\n#", 1)[0]
        for name, _ in available_fields(section, path):
            assert f"\n| `{name}` | " in text, f"{path}.{name}"


def test_defaults_are_in_the_notation_of_users() -> None:
    rows = config_markdown().splitlines()
    for row in (
        "| `grace` | Time from the signal, `delay` included, after which what is unfinished is cut. "
        "| duration, 0 allowed | `25s` |",
        "| `mode_bits` | Permissions of the file of a unix socket, octal and in quotes. "
        '| permission bits in quotes | `"0660"` |',
        "| `body_bytes` | Longest body of a request; a longer one is 413. | size or `off` | `off` |",
    ):
        assert row in rows
