"""Data -> models. What pydantic finds is said again in sentences for the user, with the path of the key.

After a first pass that reports, what was wrong is cut out and the rest validated again, so that checks over several
keys can run on what is left and all problems come in one go.
"""

from __future__ import annotations

import copy
import re
from typing import Any, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from lbproxy.config import foreign_words, short_forms
from lbproxy.config.availability import UNAVAILABLE_KEYS, UNAVAILABLE_VALUES
from lbproxy.config.model import Config
from lbproxy.config.notation import Shorthand
from lbproxy.config.problems import Path, path_text
from lbproxy.config.sections import holds_many, section_at, section_of
from lbproxy.config.source import Document
from lbproxy.config.units import shown

ROUNDS = 6
"""Cutting out may uncover at most what encloses it: item, list, section, listener or pool, file."""


def validate(document: Document) -> Config | None:
    """Report everything that is wrong with single keys; return the config, without the wrong parts if there are any.

    None means that nothing is left to look at.
    """
    data = document.data
    if not isinstance(data, dict):
        message = f"expected a mapping with `listeners` and `pools`, got {shown(data)}"
        document.complain((), message, _as_mapping((), data, is_flow=False))
        return None
    for round_number in range(ROUNDS):
        try:
            return Config.model_validate(data)
        except ValidationError as error:
            details = error.errors(include_url=False)
            if round_number == 0:
                _report(document, details)
                data = copy.deepcopy(data)  # the document keeps what stands in the file
            _cut_out(data, details)
    return None


def _report(document: Document, details: list[ErrorDetails]) -> None:
    meant: set[Path] = set()
    for detail in details:
        if detail["type"] == "extra_forbidden":
            path = _path(detail)
            suggestion, guess = _suggest_key(path, document)
            if guess:
                meant.add((*path[:-1], guess))
            document.complain(path, "unknown key", suggestion, at_key=True)
    document.blamed |= meant - document.values.keys()
    for detail in details:
        path = _path(detail)
        if detail["type"] == "extra_forbidden":
            continue
        if path[-1:] == ("[key]",):
            document.complain(path[:-1], *_sentence(detail, document), at_key=True)
        else:
            document.complain(_written(path, detail, document), *_sentence(detail, document))


def _path(detail: ErrorDetails) -> Path:
    return tuple(detail["loc"])


def _written(path: Path, detail: ErrorDetails, document: Document) -> Path:
    """The path as it stands in the file: `bind: x` is read as a list of one, a server `x` as its address, and shares of
    a split may stand in it without `pools`."""
    while detail["type"] != "missing" and path and path not in document.values:
        if path[-3:-1] == ("split", "pools") and (*path[:-2], path[-1]) in document.values:
            return *path[:-2], path[-1]
        path = path[:-1]
    return path


def _sentence(detail: ErrorDetails, document: Document) -> tuple[str, str]:
    """The message and the suggestion for anything but an unknown key."""
    kind, given = detail["type"], detail["input"]
    if kind == "missing":
        return "is required", ""
    if kind == "value_error":
        message, _, suggestion = str(detail["ctx"]["error"]).partition("; ")
        return message, suggestion
    if kind == "literal_error":
        choices = re.findall(r"'?([\w.]+)'?(?:, | or |$)", str(detail["ctx"]["expected"]))
        refused = [v for line, values in UNAVAILABLE_VALUES.items() if _describes(line, _path(detail)) for v in values]
        return _not_among(given, [choice for choice in choices if choice not in refused])
    if kind in ("tuple_type", "list_type"):
        return f"expected a list, got {shown(given)}", _as_list(given, is_flow=_path(detail) in document.flow)
    if kind in ("model_type", "dict_type", "mapping_type", "model_attributes_type"):
        forms = _forms(_path(detail))
        suggestion = _as_mapping(_path(detail), given, is_flow=_path(detail) in document.flow)
        return f"expected {forms}, got {shown(given)}", suggestion
    return f"is not valid here: {shown(given)}", ""


def _as_list(given: object, *, is_flow: bool) -> str:
    """How to make a list of what was written."""
    if isinstance(given, dict):
        return "put it in brackets: [{...}]" if is_flow else "begin each item with `- `"
    text = getattr(given, "text", given)
    is_word = isinstance(text, (str, int)) and not isinstance(text, bool) and str(text).isprintable()
    return f"did you mean [{text}]?" if is_word else ""


def _as_mapping(path: Path, given: object, *, is_flow: bool) -> str:
    """How to make the section at a path of what was written."""
    text = getattr(given, "text", given)
    if len(path) == 2 and path[0] == "pools":
        if isinstance(given, list):
            return "write {servers: [...]}" if is_flow else "write `servers:` above the list and indent it"
        if isinstance(text, str) and re.fullmatch(r"\S+:[0-9-]+|unix:\S+", text):
            return f"write {{servers: [{text}]}}"
    if isinstance(given, list):
        if path == ("pools",) and given and all(isinstance(item, dict) and "name" in item for item in given):
            shape = f"{{{given[0]['name']}: {{...}}}}" if is_flow else f"`{given[0]['name']}:`"
            return f"the name of a pool is its key: {shape}"
        if path == () or _forms(path) != "a mapping":
            return ""
        return "write {key: value}, without [ ]" if is_flow else "write `key: value`, without `- ` before it"
    section = section_at(path)
    if isinstance(text, str) and section is not None:
        word = re.match(r"([\w-]+)\s*[:=]?\s*(.*)", text, re.DOTALL)
        if word and word[1] in section.model_fields and len(text) <= 200:
            return f"did you mean `{word[1]}: {word[2]}`?"
        if path == () and (program := foreign_words.program_of_text(text)):
            return _looks_like(program)
    return short_forms.suggestion(path, given)


def _looks_like(program: str) -> str:
    return f"this looks like a config of {program}; docs/configuration.md shows one of lbproxy"


def _forms(path: Path) -> str:
    """What a section may be written as: a mapping, and the short forms of it."""
    section = section_at(path[:-1])
    field = section.model_fields.get(str(path[-1])) if section is not None else None
    words = [item.words for item in field.metadata if isinstance(item, Shorthand)] if field is not None else []
    return words[0] if words else "a mapping"


def _not_among(given: object, choices: list[str]) -> tuple[str, str]:
    listed = ", ".join(choices[:-1]) + " or " + choices[-1]
    text = getattr(given, "text", given)
    if isinstance(given, bool):
        text = "on" if given and "on" in choices else "off" if "off" in choices and not given else shown(given)
    close = closest(str(text), choices)
    return f"expected {listed}, got {shown(given)}", f"did you mean {close}?" if close else ""


def closest(given: str, choices: list[str]) -> str | None:
    """The one of the choices that was probably meant, or None."""
    import difflib  # 0.7 MB that only a mistake needs

    found = difflib.get_close_matches(given.lower().replace("-", "_"), choices, n=1, cutoff=0.6)
    return found[0] if found else None


def _suggest_key(path: Path, document: Document) -> tuple[str, str | None]:
    """What to do about an unknown key, and the known key that it probably is."""
    name = str(path[-1])
    if name.endswith(":"):
        return "one colon is enough", name.rstrip(":")
    if above := _belongs_above(path, document):
        return f"indent it if it belongs to `{above}` above", None
    if name == "<<":
        return "merge keys are not part of YAML 1.2; use an alias for a whole value", None
    section = section_at(path[:-1])
    if section is None:
        return "remove it", None
    unavailable = {
        line.rpartition(".")[2] for line in UNAVAILABLE_KEYS if _describes(line.rpartition(".")[0], path[:-1])
    }
    known = [field for field in section.model_fields if field not in unavailable]
    if len(path) == 1 and (program := foreign_words.program_of_keys(document.data)):
        return _looks_like(program), None
    if foreign := foreign_words.key(section.__name__, name):
        own = foreign.removeprefix("did you mean ").rstrip("?").partition(".")[0]
        return foreign, own if own in known else None
    if guess := closest(name, known):
        return f"did you mean {guess}?", guess
    homes = [home for parent in known if (home := _home(parent, section.model_fields[parent].annotation, name))]
    if homes:
        return f"did you mean {' or '.join(homes)}?", None
    return "known keys: " + ", ".join(known), None


def _belongs_above(path: Path, document: Document) -> str:
    """The key of the same mapping, right above, that an unknown key was probably meant to be indented under.

    That one has no value, or is a list whose items have such a key.
    """
    place, name = document.keys.get(path), str(path[-1])
    if place is None or path[:-1] in document.flow:
        return ""
    before = [(other.line, key) for key, other in document.keys.items() if key[:-1] == path[:-1] and key != path]
    above = max((item for item in before if item[0] < place.line), default=None)
    if above is None:
        return ""
    value = document.at(above[1])
    section = section_at((*above[1], 0))
    if isinstance(value, list) and value and section is not None and name in section.model_fields:
        return path_text(above[1])
    return str(above[1][-1]) if value is None and section_at(above[1]) is not None else ""


def _describes(pattern: str, path: Path) -> bool:
    parts = pattern.split(".")
    return len(parts) == len(path) and all(p in ("*", part) for p, part in zip(parts, path, strict=True))


def _home(parent: str, annotation: object, name: str) -> str | None:
    """Where a key belongs if the section in a field has it: `admin.bind`, `listeners[].bind`, `pools.NAME.strategy`."""
    section = section_of(annotation)
    if section is None or name not in section.model_fields:
        return None
    if not holds_many(annotation):
        return f"{parent}.{name}"
    return f"{parent}[].{name}" if get_origin(annotation) is tuple else f"{parent}.NAME.{name}"


def _cut_out(data: dict[str, Any], details: list[ErrorDetails]) -> None:
    """Remove what is wrong; where it cannot be missing, leave something empty in its place.

    Items of `listeners`, `routes` and `tests` keep their places, because later complaints count by them.
    """
    for path in sorted({_to_cut(detail) for detail in details}, key=_last_item_first, reverse=True):
        if path:
            _cut(data, path)


def _to_cut(detail: ErrorDetails) -> Path:
    """The path of a wrong value; of a missing one what encloses it, unless it can be left empty."""
    path = _path(detail)
    if path[-1:] == ("[key]",):
        return path[:-1]
    return path[:-1] if detail["type"] == "missing" and _stand_in(path) is None else path


def _last_item_first(path: Path) -> list[tuple[int, str]]:
    return [(part, "") if isinstance(part, int) else (-1, part) for part in path]


def _stand_in(path: Path) -> object:
    """What to leave instead of a wrong value that cannot simply be removed."""
    match path:
        case ("listeners",) | ("listeners", _, "bind") | ("pools", _, "servers"):
            return []
        case ("listeners", _):
            return {"bind": []}
        case ("pools", _):
            return {"servers": []}
        case ("listeners", _, "routes", int()) | ("tests", _, "request" | "expect"):
            return {}
        case ("tests", int()):
            return {"request": {}, "expect": {}}
    return None


def _cut(data: dict[str, Any], path: Path) -> None:
    parent: Any = data
    for depth, part in enumerate(path, start=1):
        present = part in parent if isinstance(parent, dict) else isinstance(part, int) and part < len(parent)
        if present and depth < len(path) and isinstance(parent[part], (dict, list)):
            parent = parent[part]
            continue
        if (instead := _stand_in(path[:depth])) is not None:
            parent[part] = instead
        elif present:
            del parent[part]
        return
