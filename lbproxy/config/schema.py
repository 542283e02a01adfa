"""The JSON Schema of a config file, for editors and `lbproxy schema`: from the models, less what is not available."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from lbproxy.config.availability import UNAVAILABLE_KEYS, UNAVAILABLE_VALUES
from lbproxy.config.manual import config_markdown
from lbproxy.config.model import Config
from lbproxy.config.sections import section_at

__all__ = ["config_markdown", "json_schema", "json_schema_text"]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

Json = dict[str, Any]


def json_schema() -> Json:
    """The schema as plain data. Values that come from `${VAR}` are judged by lbproxy, not by the schema."""
    schema: Json = Config.model_json_schema()
    definitions: Json = schema.pop("$defs")
    for line in UNAVAILABLE_KEYS:
        where, _, name = line.rpartition(".")
        _definition(definitions, where)["properties"].pop(name)
    for line, values in UNAVAILABLE_VALUES.items():
        where, _, name = line.removesuffix(".*").rpartition(".")
        _forbid(_definition(definitions, where)["properties"][name], values)
    _tidy(schema)
    _tidy(definitions)
    used: dict[str, Any] = {}
    _collect(schema, definitions, used)
    title = {"$schema": DIALECT, "title": "lbproxy configuration"}
    return {**title, **schema, "$defs": {name: used[name] for name in sorted(used)}}


def json_schema_text() -> str:
    """The schema as it is committed and printed."""
    return json.dumps(json_schema(), indent=2) + "\n"


def _definition(definitions: Json, where: str) -> Json:
    section = section_at(tuple(where.split(".")))
    if section is None:
        raise LookupError(f"availability table: {where} is no section")
    found: Json = definitions[section.__name__]
    return found


def _forbid(node: Any, values: tuple[str, ...]) -> None:
    """Take values out of every enumeration below a node."""
    if isinstance(node, dict):
        if isinstance(node.get("enum"), list):
            node["enum"] = [choice for choice in node["enum"] if choice not in values]
        for child in node.values():
            _forbid(child, values)
    elif isinstance(node, list):
        for child in node:
            _forbid(child, values)


def _tidy(node: Any) -> None:
    """Drop what only pydantic needs: titles, null (no user can write it), and defaults of whole sections."""
    if isinstance(node, list):
        for child in node:
            _tidy(child)
    if not isinstance(node, dict):
        return
    if isinstance(node.get("title"), str):
        del node["title"]
    if node.get("default", "") is None or isinstance(node.get("default"), dict):
        del node["default"]
    if isinstance(node.get("anyOf"), list):
        _flatten_choices(node)
    for child in node.values():
        _tidy(child)


def _flatten_choices(node: Json) -> None:
    """One level of alternatives, without null; a single one needs no anyOf."""
    choices: list[Json] = []
    for choice in node["anyOf"]:
        choices.extend(choice["anyOf"] if set(choice) == {"anyOf"} else [choice])
    choices = [choice for choice in choices if choice.get("type") != "null"]
    if len(choices) == 1:
        del node["anyOf"]
        node |= choices[0]
    else:
        node["anyOf"] = choices


def _collect(node: Any, definitions: Json, used: Json) -> None:
    """The definitions that a node needs, directly or not."""
    if isinstance(node, list):
        for child in node:
            _collect(child, definitions, used)
    if not isinstance(node, dict):
        return
    name = str(node.get("$ref", "")).rpartition("/")[2]
    if name and name not in used:
        used[name] = definitions[name]
        _collect(definitions[name], definitions, used)
    for child in node.values():
        _collect(child, definitions, used)


if __name__ == "__main__":
    sys.stdout.write(json_schema_text())
