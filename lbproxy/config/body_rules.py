"""Models of what routes ask of JSON bodies, and of how the requests of one route are shared out among pools."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Annotated, Final

from lbproxy.config.notation import POOL_NAME, TEXT_SCHEMA, Notation, Section, Shorthand, integer, setting
from lbproxy.config.units import parse_text
from lbproxy.request_key import FORMS, read_key, read_pointer

MOST_POOLS: Final = 16
SHARE: Final = integer(0, 1_000_000)
MOST_POINTERS: Final = 8
"""That one listener may ask for: each is looked for by itself."""


def parse_pointer(value: object) -> str:
    """A JSON Pointer to a value: `/model`, `/user/id`."""
    text = parse_text(value)
    read_pointer(text)
    return text


def parse_wanted(value: object) -> str:
    """What a value of the body must be; true, false and numbers are those of JSON."""
    text = ("true" if value else "false") if isinstance(value, bool) else parse_text(value)
    if not text:
        raise ValueError("an empty text never matches; write `*` for any value")
    return text


def parse_key(value: object) -> str:
    text = parse_text(value)
    read_key(text)
    return text


POINTER: Final = Notation("JSON Pointer", parse_pointer, {"type": "string", "pattern": "^/"})
WANTED: Final = Notation("text, `*` for any", parse_wanted, {"type": ["string", "number", "boolean"]})
KEY: Final = Notation(FORMS, parse_key, TEXT_SCHEMA)

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", 'Field name "json"')  # a method of pydantic's that has long been deprecated

    class BodyMatch(Section):
        json: Mapping[Annotated[str, POINTER], Annotated[str, WANTED]] = setting(  # type: ignore[assignment]
            {},
            'JSON Pointers into the body, and what must stand there: `{/model: "llama-*"}`; `*` stands for any text '
            "within it. The first 64 KiB of a body are looked at, and only where all other conditions hold.",
        )


def expand_split(value: object) -> object:
    """`{stable: 95, canary: 5}` is short for `{pools: {...}}`; a pool may well be called `pools`."""
    if not isinstance(value, dict) or "by" in value:
        return value
    inner = value.get("pools", 0)
    return value if "pools" in value and not isinstance(inner, (int, str)) else {"pools": value}


class Split(Section):
    """Pools that share the requests of a route."""

    by: Annotated[str | None, KEY.or_unset()] = setting(
        None,
        "What a request must have in common with another to go to the same pool, as the `key` of `consistent_hash`: "
        "`client_ip`, `header:NAME`, `cookie:NAME`, `query:NAME`, `path`, `host` or `json:/POINTER`. A request without "
        "it goes by chance. Not set: every request goes by chance.",
    )
    pools: Mapping[Annotated[str, POOL_NAME], Annotated[int, SHARE]] = setting(
        ...,
        "Pools and their shares, in any scale: `{stable: 95, canary: 5}`. 0: no request. `lbproxy split` changes it.",
    )


SPLIT: Final = Shorthand(
    "pools with their shares, or a mapping",
    expand_split,
    ({"type": "object", "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 1_000_000}},),
)
