"""The files in config/ load without a complaint, and every-key.yaml holds every key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import BaseModel

from lbproxy.address import Address
from lbproxy.config.availability import matching
from lbproxy.config.loader import load_file
from lbproxy.config.model import Config
from lbproxy.config.sections import available_fields, available_sections
from lbproxy.config.source import parse

CONFIG = Path(__file__).parents[3] / "config"
EXAMPLES = sorted(CONFIG.glob("*.yaml"))
assert EXAMPLES
EVERY_SECTION: list[tuple[str, type[BaseModel]]] = [("", Config), *available_sections()]
HEADER = "# yaml-language-server: $schema=../docs/lbproxy.schema.json\n"


def loaded(name: str, environ: Mapping[str, str] | None = None) -> Config:
    made = load_file(CONFIG / name, environ or {})
    assert [str(warning) for warning in made.warnings] == []
    return made.config


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_load_and_point_to_the_schema(path: Path) -> None:
    loaded(path.name)
    assert path.read_text().startswith(HEADER)
    assert (path.parent / HEADER.partition("=")[2].strip()).is_file()


def test_every_key_has_every_key() -> None:
    data = parse((CONFIG / "every-key.yaml").read_text(), "every-key.yaml", {}).data
    missing = [
        f"{path}.{name}"
        for path, section in EVERY_SECTION
        for name, _ in available_fields(section, path)
        if not any(True for _ in matching(data, tuple(f"{path}.{name}".lstrip(".").split("."))))
    ]
    assert missing == []


def test_minimal() -> None:
    made = loaded("minimal.yaml")
    assert made.listeners[0].bind == (Address("0.0.0.0", 5000),)
    assert [str(server.address) for server in made.pools["predict"].servers] == [
        "127.0.0.1:5001",
        "127.0.0.1:5002",
        "127.0.0.1:5003",
    ]


def test_flask() -> None:
    made = loaded("flask.yaml").pools["predict"]
    assert made.strategy.name == "round_robin"
    assert made.retry.idempotent
    assert made.health_check is not None
    assert (made.health_check.type, made.health_check.path) == ("http", "/health")
    assert len(made.servers) == 3


def test_sidecar() -> None:
    made = loaded("sidecar.yaml")
    assert made.admin.bind == Address("0.0.0.0", 8404)
    assert made.admin.token is None
    made = loaded("sidecar.yaml", {"LBPROXY_TOKEN": "007", "LBPROXY_SERVERS": "model:80"})
    assert made.admin.token == "007"
    assert made.pools["predict"].servers[0].address == Address("model", 80)
