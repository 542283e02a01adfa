"""Why a route does not take a request, in words: the conditions of its match, and which of them does not hold.

The router itself says which one that is (`Router.trace`), so that what people read is what happens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import parse_qsl

from lbproxy.domain.routing import ANY, MatchSpec, normalise_host
from lbproxy.request_key import KEY_NAME

Condition = tuple[str, str, str]
"""A key of `match`, the name of a header or of a query parameter (else ""), and what is wanted."""

ANY_REQUEST: Final = "any request"
_SHOWN: Final = 200  # characters of a text that the request brought


def conditions(match: MatchSpec) -> list[Condition]:
    """What must hold, in the order in which the router tests it. All parameters of the query are one test of it."""
    found: list[Condition] = []
    if match.host:
        found.append(("host", "", match.host))
    if match.methods:
        found.append(("methods", "", ", ".join(match.methods)))
    if match.path:
        found.append(("path", "", match.path))
    if match.path_prefix:
        found.append(("path_prefix", "", match.path_prefix))
    if match.path_regex:
        found.append(("path_regex", "", match.path_regex))
    for name, value in match.headers.items():
        found.append(("api_key", "", value) if name == KEY_NAME else ("headers", name.lower(), value))
    if match.query:
        found.append(("query", "", "&".join(f"{name}={value}" for name, value in match.query.items())))
    found += [("json", pointer, wanted) for pointer, wanted in match.json.items()]
    return found


def match_words(match: MatchSpec | None) -> str:
    """A whole match: `host *.example.org, path_prefix /v1`; what holds for every request is ANY_REQUEST."""
    if match is None:
        return ANY_REQUEST
    words = [f"{key} {name + ' ' if name else ''}{wanted}" for key, name, wanted in conditions(match)]
    return ", ".join(words) or ANY_REQUEST


def failure_words(
    match: MatchSpec,
    position: int,
    *,
    method: str,
    host: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    in_body: Callable[[str], str] = lambda pointer: "",
) -> str:
    """Why the condition at this position of `conditions` does not hold. path: as rules compare it. in_body: what
    stands at a JSON Pointer of the body, "" for nothing."""
    key, name, wanted = conditions(match)[position]
    if key == "host":
        return f"the host is {_text(normalise_host(host))}, not {wanted}"
    if key == "methods":
        return f"the method is {_text(method)}, not {'one of ' if ', ' in wanted else ''}{wanted}"
    if key == "path":
        return f"the path is {_text(path)}, not {wanted}"
    if key == "path_prefix":
        return f"the path {_text(path)} is not {wanted} or below it"
    if key == "path_regex":
        return f"the path {_text(path)} does not match {wanted}"
    if key == "api_key":
        given = headers.get(KEY_NAME)
        return f"its API key is that of {given}, not of {wanted}" if given else "it has no good API key"
    if key == "headers":
        given = headers.get(name)
        if given is None:
            return f"there is no header {name}"
        return f"the header {name} is {_text(given)}, not {wanted}"
    if key == "json":
        found = in_body(name)
        return f"{name} of the body is {_text(found)}, not {wanted}" if found else f"the body has no {name} to go by"
    return _query_words(match, query)


def _query_words(match: MatchSpec, query: str) -> str:
    given: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        given.setdefault(name, []).append(value)
    for name, wanted in match.query.items():
        values = given.get(name)
        if values is None:
            return f"the query has no {name}"
        if wanted != ANY and wanted not in values:
            return f"the query's {name} is {_text(', '.join(values))}, not {wanted}"
    return "the query does not match"


def _text(text: str) -> str:
    return text if 0 < len(text) <= _SHOWN else f"{text[:_SHOWN]}..." if text else "empty"
