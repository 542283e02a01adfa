"""Walking over the models: which section of the config describes which path, and which keys it has."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from lbproxy.config.availability import UNAVAILABLE_KEYS
from lbproxy.config.model import Config
from lbproxy.config.problems import Path


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The model in a field's type: in it, in its items or in its values."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    origin = get_origin(annotation)
    arguments = get_args(annotation)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        arguments = arguments[1:]
    if origin in (Union, types.UnionType, tuple) or arguments:
        for argument in arguments:
            if (found := section_of(argument)) is not None:
                return found
    return None


def section_at(path: Path) -> type[BaseModel] | None:
    """The model that describes the mapping at a path."""
    section: type[BaseModel] | None = Config
    parts = iter(path)
    for part in parts:
        if section is None or part not in section.model_fields:
            return None
        annotation = section.model_fields[str(part)].annotation
        section = section_of(annotation)
        if holds_many(annotation):
            next(parts, None)
    return section


def available_fields(section: type[BaseModel], path: str) -> Iterator[tuple[str, FieldInfo]]:
    """The keys that a user may write in the section at a path such as `pools.*`."""
    for name, info in section.model_fields.items():
        if not info.exclude and f"{path}.{name}".lstrip(".") not in UNAVAILABLE_KEYS:
            yield name, info


def available_sections(section: type[BaseModel] = Config, path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section below one, in the order of the manual. In its path `*` stands for an index or a name."""
    for name, info in available_fields(section, path):
        inner = section_of(info.annotation)
        if inner is not None:
            place = f"{path}.{name}".lstrip(".") + (".*" if holds_many(info.annotation) else "")
            yield place, inner
            yield from available_sections(inner, place)


def holds_many(annotation: object) -> bool:
    """True for a list or a mapping by name."""
    origin = get_origin(annotation)
    return origin is tuple or (isinstance(origin, type) and issubclass(origin, Mapping))
