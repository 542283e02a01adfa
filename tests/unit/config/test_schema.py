from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from lbproxy.config.availability import UNAVAILABLE_KEYS
from lbproxy.config.model import Config
from lbproxy.config.schema import json_schema, json_schema_text
from lbproxy.config.sections import available_fields, available_sections, section_at

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "config").glob("*.yaml"))
assert EXAMPLES

EVERY_SECTION: list[tuple[str, type[BaseModel]]] = [("", Config), *available_sections()]


def test_the_committed_schema_is_what_the_code_prints() -> None:
    committed = (ROOT / "docs" / "lbproxy.schema.json").read_text()
    assert committed == json_schema_text(), "run: python -m lbproxy.config.schema > docs/lbproxy.schema.json"
    assert json.loads(committed) == json_schema()


def properties(path: str) -> set[str]:
    schema = json_schema()
    if not path:
        return set(schema["properties"])
    section = section_at(tuple(path.split(".")))
    assert section is not None
    return set(schema["$defs"][section.__name__]["properties"])


def test_the_schema_has_every_available_key_and_no_other() -> None:
    assert properties("") == {name for name, _ in available_fields(Config, "")}
    for path, section in available_sections():
        assert properties(path) == {name for name, _ in available_fields(section, path)}, path
    for line in UNAVAILABLE_KEYS:
        where, _, name = line.rpartition(".")
        assert name not in properties(where), line


def test_unavailable_values_are_not_offered() -> None:
    text = json_schema_text()
    assert '"auto"\n            ]' not in text
    for word in ('"peak_ewma"', '"consistent_hash"', '"first"', '"timeout"\n'):
        assert word in text


def test_there_is_nothing_in_it_that_only_the_model_library_understands() -> None:
    def walk(node: Any) -> None:
        if isinstance(node, dict):
            assert node.get("type") != "null"
            if node is not schema and "title" in node:  # only as the name of a property
                assert isinstance(node["title"], dict)
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    schema = json_schema()
    walk(schema)
    assert json.dumps(schema).count("#/$defs/") >= len(schema["$defs"])
    for name in schema["$defs"]:
        assert f"#/$defs/{name}" in json.dumps(schema)


def test_every_key_is_described() -> None:
    for path, section in EVERY_SECTION:
        for name, info in available_fields(section, path):
            assert info.description and info.description[-1] in ".", f"{path}.{name}"


def judge(schema: dict[str, Any], node: Any, definitions: dict[str, Any]) -> bool:
    """Enough of JSON Schema for this one: validates the example files without another dependency."""
    if "$ref" in schema and not judge(definitions[schema["$ref"].rpartition("/")[2]], node, definitions):
        return False
    if "anyOf" in schema and not any(judge(choice, node, definitions) for choice in schema["anyOf"]):
        return False
    if ("const" in schema and node != schema["const"]) or ("enum" in schema and node not in schema["enum"]):
        return False
    kinds: dict[str, type | tuple[type, ...]] = {
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "object": dict,
        "array": list,
    }
    wanted = schema.get("type", [])
    wanted = wanted if isinstance(wanted, list) else [wanted]
    if wanted and not any(
        isinstance(node, kinds[kind]) and (kind == "boolean" or not isinstance(node, bool)) for kind in wanted
    ):
        return False
    if isinstance(node, (int, float)) and not schema.get("minimum", node) <= node <= schema.get("maximum", node):
        return False
    if isinstance(node, list) and "items" in schema:
        return all(judge(schema["items"], item, definitions) for item in node)
    if isinstance(node, dict):
        known = dict(schema.get("properties", {}))
        for pattern, inner in schema.get("patternProperties", {}).items():
            known |= {name: inner for name in node if re.search(pattern, name)}
        if schema.get("additionalProperties") is False and set(node) - set(known):
            return False
        return set(schema.get("required", ())) <= set(node) and all(
            judge(known[name], item, definitions) for name, item in node.items() if name in known
        )
    return True


class Plain(yaml.SafeLoader):
    """YAML whose `on` and `off` are texts, as the schema takes them."""


Plain.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if not tag.endswith(("bool", "timestamp"))]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def judged(text: str) -> bool:
    data = yaml.load(text.replace(": true", ": !!bool true").replace(": false", ": !!bool false"), Plain)
    schema = json_schema()
    return judge(schema, data, schema["$defs"])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_schema_accepts_the_examples(path: Path) -> None:
    assert judged(path.read_text())


@pytest.mark.parametrize(
    "change",
    [("bind:", "bnid:"), ("pool: predict", "pool: 5"), ("servers:", "server:"), ("listeners:", "listener:")],
)
def test_the_schema_refuses_what_lbproxy_refuses(change: tuple[str, str]) -> None:
    text = (ROOT / "config" / "minimal.yaml").read_text()
    assert judged(text)
    assert not judged(text.replace(*change))
