"""Routing: which route takes a request. The first that matches, in configured order; all keys of a match must hold.

What is compared:

    key          matches                                                     compared with
    host         the name, or one label for the `*` in `*.example.org`       Host without case, port and final dot
    path         the whole path                                              the normalised path
    path_prefix  the path or a part that ends before a `/`: /api takes /api  the normalised path
                 and /api/x, not /apix; /api/ takes /api/x, not /api
    path_regex   a regular expression from the start of the path; what       the normalised path
                 follows is free unless the expression ends in `$`
    methods      one of them                                                 the method
    headers      the exact value, or `*` for any; repeated fields are        names without case
                 joined with ", "
    query        the exact value of one of the parameters of that name,      names and values percent-decoded, `+` is
                 or `*` for any, also none                                    a space

A path is normalised (RFC 3986 section 6.2.2) by decoding %XX of unreserved characters and writing the other ones in
upper case. What servers are known to read differently from proxies is refused instead of interpreted: dot segments
(also in front of a `;`), encoded slashes, backslashes, NUL, and a `%` without two hexadecimal digits, from which a
second decoding could make any of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, quote

ANY: Final = "*"
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})?")
_REFUSED_ESCAPES: Final = {"%2F": "an encoded slash", "%5C": "an encoded backslash", "%00": "an encoded NUL"}


@dataclass(frozen=True, slots=True)
class MatchSpec:
    """The `match` of a route; a key that is None or empty holds for every request."""

    host: str | None = None
    path: str | None = None
    path_prefix: str | None = None
    path_regex: str | None = None
    methods: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """What the router must know of a route. No match: the default route."""

    match: MatchSpec | None = None


class BadPath(ValueError):
    """A path that is refused rather than routed; the message says why. The request is answered with 400."""


@dataclass(slots=True)
class _Request:
    """What the tests of one request look at. Not frozen: that would cost 1 us per request."""

    method: str
    host: str
    path: str
    query: str
    headers: Mapping[str, str]


_Test = Callable[[_Request], bool]


class Router:
    """Compiled routes. `find` costs nothing if the first route is the default."""

    __slots__ = ("_default", "_rules", "_uses_host", "has_path_routes")

    def __init__(self, rules: Sequence[tuple[int, tuple[_Test, ...]]], default: int | None) -> None:
        self._rules = tuple(rules)
        self._default = default
        self._uses_host = False
        self.has_path_routes = False

    @classmethod
    def compile(cls, routes: Sequence[RouteSpec]) -> Router:
        """Raises ValueError with a sentence if a path or a regular expression cannot be used.

        Routes behind a default route can never match and are left out.
        """
        rules: list[tuple[int, tuple[_Test, ...]]] = []
        default: int | None = None
        seen: list[MatchSpec] = []
        for index, route in enumerate(routes):
            tests = _tests(route.match) if route.match is not None else ()
            if route.match is None or not tests:
                default = index
                break
            rules.append((index, tests))
            seen.append(route.match)
        router = cls(rules, default)
        router._uses_host = any(match.host for match in seen)
        router.has_path_routes = any(match.path or match.path_prefix or match.path_regex for match in seen)
        return router

    def find(self, method: str, host: str, path: str, query: str, headers: Mapping[str, str]) -> int | None:
        """The index of the first route that matches, or None.

        path: from `normalise_path` if `has_path_routes`, else anything. query: raw, without `?`. headers: lower-case
        names. host: the Host field as received.
        """
        if not self._rules:
            return self._default
        request = _Request(method, normalise_host(host) if self._uses_host else host, path, query, headers)
        for index, tests in self._rules:
            for test in tests:  # not all(...): a generator per route doubles the cost
                if not test(request):
                    break
            else:
                return index
        return self._default


def _tests(match: MatchSpec) -> tuple[_Test, ...]:
    """The tests of one match, the cheapest and most telling first."""
    tests: list[_Test] = []
    if match.host:
        tests.append(_host_test(match.host))
    if match.methods:
        methods = frozenset(method.upper() for method in match.methods)
        tests.append(lambda request: request.method in methods)
    if match.path:
        path = _configured_path(match.path)
        tests.append(lambda request: request.path == path)
    if match.path_prefix:
        tests.append(_prefix_test(_configured_path(match.path_prefix)))
    if match.path_regex:
        tests.append(_regex_test(match.path_regex))
    tests.extend(_header_test(name.lower(), value) for name, value in match.headers.items())
    if match.query:
        tests.append(_query_test(dict(match.query)))
    return tuple(tests)


def _host_test(host: str) -> _Test:
    wanted = normalise_host(host)
    if not wanted.startswith("*."):
        return lambda request: request.host == wanted
    suffix = wanted[1:]

    def has_one_more_label(request: _Request) -> bool:
        label = request.host.removesuffix(suffix)
        return len(label) < len(request.host) and label != "" and "." not in label

    return has_one_more_label


def _prefix_test(prefix: str) -> _Test:
    if prefix.endswith("/"):
        return lambda request: request.path.startswith(prefix)
    below = prefix + "/"
    return lambda request: request.path == prefix or request.path.startswith(below)


def _regex_test(text: str) -> _Test:
    try:
        expression = re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from error
    return lambda request: expression.match(request.path) is not None


def _header_test(name: str, value: str) -> _Test:
    if value == ANY:
        return lambda request: name in request.headers
    return lambda request: request.headers.get(name) == value


def _query_test(wanted: Mapping[str, str]) -> _Test:
    def has_all(request: _Request) -> bool:
        if not request.query:
            return False
        given = parse_qsl(request.query, keep_blank_values=True)
        return all(
            any(name == key and value in (ANY, given_value) for name, given_value in given)
            for key, value in wanted.items()
        )

    return has_all


def normalise_host(host: str) -> str:
    """A Host field or configured name for comparison: lower case, without port and final dot."""
    if host.startswith("["):
        return host[: host.find("]") + 1].lower() or host.lower()
    return host.partition(":")[0].removesuffix(".").lower()


def normalise_path(raw_path: str) -> str:
    """The path for comparison and rewriting (see the preface). Raises BadPath."""
    if "%" not in raw_path and "/." not in raw_path and "\\" not in raw_path and "\0" not in raw_path:
        return raw_path  # nearly all requests
    if "\\" in raw_path:
        raise BadPath("the path has a backslash")
    if "\0" in raw_path:
        raise BadPath("the path has a NUL character")
    path = _ESCAPE.sub(_decode_unreserved, raw_path)
    for segment in path.split("/"):
        if segment.partition(";")[0] in (".", ".."):
            raise BadPath(f"the path has a {segment!r} segment")
    return path


def _decode_unreserved(escape: re.Match[str]) -> str:
    digits = escape[1]
    if digits is None:
        raise BadPath("the path has a '%' without two hexadecimal digits")
    character = chr(int(digits, 16))
    if character in _UNRESERVED:
        return character
    text = "%" + digits.upper()
    if text in _REFUSED_ESCAPES:
        raise BadPath(f"the path has {_REFUSED_ESCAPES[text]}")
    return text


def _configured_path(text: str) -> str:
    """A path of a match as `normalise_path` would give it. Raises BadPath."""
    return normalise_path(_encoded(text))


def _encoded(text: str) -> str:
    """A path of the config as clients send it: characters that a path cannot hold are percent-encoded."""
    return quote(text, safe="/%:@!$&'()*+,;=~-._")


def rewrite_path(path: str, strip_prefix: str | None, path_prefix: str | None) -> str:
    """The path that the server gets: `strip_prefix` taken off if the path is at or below it, then `path_prefix` put on.

    With strip_prefix /api and path_prefix /v2: /api is /v2, /api/ is /v2/, /api/x is /v2/x. The result starts with
    exactly one slash if something was stripped, so that no server reads the first segment as a host. `*` (OPTIONS)
    stays. Never raises.
    """
    if not path.startswith("/"):
        return path
    rest = path
    if strip_prefix:
        prefix = _encoded(strip_prefix).rstrip("/")
        if path == prefix:
            rest = ""
        elif path.startswith(prefix + "/"):
            rest = "/" + path[len(prefix) :].lstrip("/")
    if path_prefix:
        rest = _encoded(path_prefix).rstrip("/") + rest
    return rest or "/"
