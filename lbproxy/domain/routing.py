"""Routing: which route takes a request. The first that matches, in configured order; all keys of a match must hold.

What is compared:

    key          matches                                                     compared with
    host         the name, or one label for the `*` in `*.example.org`       Host without case, port and final dot
    path         the whole path                                              the path (see paths.py)
    path_prefix  the path or a part that ends before a `/`: /api takes /api  the path
                 and /api/x, not /apix; /api/ takes /api/x, not /api
    path_regex   a regular expression from the start of the path; what       the path
                 follows is free unless the expression ends in `$`
    methods      one of them; GET stands for HEAD as well                    the method without case
    headers      the exact value, or `*` for any; repeated fields are        names without case
                 joined with ", "
    query        the exact value of one of the parameters of that name,      names and values percent-decoded, `+` is
                 or `*` for any, also none                                    a space
    json         the text, number or flag at a JSON Pointer, `*` for any     the body (dataplane/exchange/choosing.py)
                 text within it

Methods differ by case (RFC 9110 section 9.1), but Werkzeug and others read `delete` as `DELETE`; a rule that does not
could be walked around. A route that lists GET and not HEAD takes HEAD too, unless another route with the same match
otherwise lists HEAD.

The path is read when the first rule asks for it. So what makes a path refused (paths.py) is no reason to refuse a
request that an earlier route takes by its host, say.

What a body must hold is not known when the head is there: `choose` names the routes for which all else holds, in their
order, and the one that takes the request if none of them does. Of a request without a body they are not asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import parse_qsl

from lbproxy.domain.paths import BadPath, PathRules, ReadPath, normalise_path, rewrite_path

ANY: Final = "*"
NORMALISE: Final = PathRules()


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
    json: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """What the router must know of a route. No match: the default route."""

    match: MatchSpec | None = None


class Choice:
    """What was found for a request. index: of the route, None if there is none. path: None if no rule asked for it.

    by_body: routes before it that depend on the body."""

    __slots__ = ("by_body", "index", "path")

    def __init__(self, index: int | None, path: ReadPath | None, by_body: tuple[int, ...] = ()) -> None:
        self.index = index
        self.path = path
        self.by_body = by_body


class _Request:
    """What the tests of one request look at."""

    __slots__ = ("_compared", "_raw_path", "_rules", "headers", "host", "method", "path", "query")

    def __init__(
        self, method: str, host: str, raw_path: str, query: str, headers: Mapping[str, str], rules: PathRules
    ) -> None:
        self.method = method
        self.host = host
        self.query = query
        self.headers = headers
        self.path: ReadPath | None = None
        self._raw_path = raw_path
        self._rules = rules
        self._compared = ""

    def compared_path(self) -> str:
        """The path, or the reading of it that is tried. Raises BadPath."""
        if self.path is None:
            self.read_path()
        return self._compared

    def read_path(self) -> None:
        self.path = self._rules.read(self._raw_path)
        self._compared = self.path.readings[0]

    def try_reading(self, text: str) -> None:
        self._compared = text


_Test = Callable[[_Request], bool]
_AMBIGUOUS: Final = "servers read this path in several ways, and for them different routes match"


class Router:
    """Compiled routes. `choose` costs nothing if the first route is the default."""

    __slots__ = ("_asks_bodies", "_default", "_path_rules", "_rules", "_uses_host", "reads_headers", "specs")

    def __init__(
        self, rules: Sequence[tuple[int, tuple[_Test, ...]]], default: int | None, path_rules: PathRules = NORMALISE
    ) -> None:
        self._rules = tuple(rules)
        self._default = default
        self._path_rules = path_rules
        self._uses_host = False
        self.reads_headers = any(tests for _, tests in self._rules)  # does it look at header fields?
        self._asks_bodies: frozenset[int] = frozenset()
        self.specs: tuple[RouteSpec, ...] = ()  # what it was compiled from

    @classmethod
    def compile(cls, routes: Sequence[RouteSpec], path_rules: PathRules = NORMALISE) -> Router:
        """Raises ValueError with a sentence if a path or a regular expression cannot be used.

        Routes behind a default route can never match and are left out.
        """
        rules: list[tuple[int, tuple[_Test, ...]]] = []
        default: int | None = None
        seen: list[MatchSpec] = []
        by_body: list[int] = []
        heads = [replace(r.match, methods=()) for r in routes if r.match is not None and "HEAD" in _methods(r.match)]
        for index, route in enumerate(routes):
            tests: tuple[_Test, ...] = ()
            if route.match is not None:
                takes_head = replace(route.match, methods=()) not in heads
                tests = _tests(route.match, path_rules, takes_head=takes_head)
            if route.match is None or not (tests or route.match.json):
                default = index
                break
            rules.append((index, tests))
            if route.match.json:
                by_body.append(index)
            seen.append(route.match)
        router = cls(rules, default, path_rules)
        router._uses_host = any(match.host for match in seen)
        router.reads_headers = any(match.headers for match in seen)
        router._asks_bodies = frozenset(by_body)
        router.specs = tuple(routes)
        return router

    def choose(
        self, method: str, host: str, path: str, query: str, headers: Mapping[str, str], *, has_body: bool = False
    ) -> Choice:
        """The first route that matches, and the path if it was looked at.

        path: as received, without the query. query: raw, without `?`. headers: lower-case names. host: the Host field
        as received. Raises BadPath if a rule asks for the path and it cannot be understood, or if what it means to
        different servers would lead to different routes. `path_rules: strict` looks at every path.
        """
        if not self._rules and not self._path_rules.is_strict:
            return Choice(self._default, None)
        request = _Request(
            method.upper(), normalise_host(host) if self._uses_host else host, path, query, headers, self._path_rules
        )
        if self._path_rules.is_strict:
            request.read_path()
        if self._asks_bodies:
            return self._choose_by_body(request, has_body=has_body)
        index = self._first_match(request)
        read = request.path
        if read is not None and len(read.readings) > 1:
            for reading in read.readings[1:]:
                request.try_reading(reading)
                if self._first_match(request) != index:
                    raise BadPath(_AMBIGUOUS)
        return Choice(index, read)

    def _choose_by_body(self, request: _Request, *, has_body: bool) -> Choice:
        """`choose` where some rules ask for the body."""
        found = self._matches(request, has_body=has_body)
        read = request.path
        if read is not None and len(read.readings) > 1:
            for reading in read.readings[1:]:
                request.try_reading(reading)
                if self._matches(request, has_body=has_body) != found:
                    raise BadPath(_AMBIGUOUS)
        index = found[-1]
        return Choice(index if index >= 0 else None, read, tuple(found[:-1]))

    def _matches(self, request: _Request, *, has_body: bool) -> list[int]:
        """The routes that depend on the body, and behind them the one that does not; -1 if there is none."""
        found: list[int] = []
        for index, tests in self._rules:
            by_body = index in self._asks_bodies
            if by_body and not has_body:
                continue
            for test in tests:
                if not test(request):
                    break
            else:
                found.append(index)
                if not by_body:
                    return found
        found.append(-1 if self._default is None else self._default)
        return found

    def trace(
        self,
        method: str,
        host: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        steps: list[tuple[int, int]],
        holds: Callable[[str, str], bool] | None = None,
    ) -> None:
        """How `choose` comes to its choice, for people: the arguments are the same.

        holds: does this stand at that JSON Pointer of the body? None: there is none. steps: gets the route of each rule
        that is asked, and which of its tests fails first, -1 if none does; the tests are in the order of
        `route_words.conditions`. Raises BadPath where the path cannot be understood; what was asked before stands in
        `steps`.
        """
        request = _Request(method.upper(), normalise_host(host), path, query, headers, self._path_rules)
        if self._path_rules.is_strict:
            request.read_path()
        for index, tests in self._rules:
            failed = -1
            for position, test in enumerate(tests):
                if not test(request):
                    failed = position
                    break
            match = self.specs[index].match
            if failed < 0 and match is not None:
                for position, (pointer, wanted) in enumerate(match.json.items(), len(tests)):
                    if holds is None or not holds(pointer, wanted):
                        failed = position
                        break
            steps.append((index, failed))
            if failed < 0:
                return
        if self._default is not None:
            steps.append((self._default, -1))

    def _first_match(self, request: _Request) -> int | None:
        for index, tests in self._rules:
            for test in tests:  # not all(...): a generator per route doubles the cost
                if not test(request):
                    break
            else:
                return index
        return self._default


def _methods(match: MatchSpec) -> frozenset[str]:
    return frozenset(method.upper() for method in match.methods)


def _tests(match: MatchSpec, path_rules: PathRules, *, takes_head: bool) -> tuple[_Test, ...]:
    """The tests of one match, the cheapest and most telling first. takes_head: a GET among the methods covers HEAD."""
    tests: list[_Test] = []
    if match.host:
        tests.append(_host_test(match.host))
    if match.methods:
        methods = _methods(match)
        if takes_head and "GET" in methods:
            methods |= {"HEAD"}
        tests.append(_method_test(methods))
    if match.path:
        tests.append(_path_test(path_rules.configured(match.path)))
    if match.path_prefix:
        tests.append(_prefix_test(path_rules.configured(match.path_prefix)))
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


def _method_test(methods: frozenset[str]) -> _Test:
    return lambda request: request.method in methods


def _path_test(path: str) -> _Test:
    return lambda request: request.compared_path() == path


def _prefix_test(prefix: str) -> _Test:
    if prefix.endswith("/"):
        return lambda request: request.compared_path().startswith(prefix)
    below = prefix + "/"

    def is_at_or_below(request: _Request) -> bool:
        path = request.compared_path()
        return path == prefix or path.startswith(below)

    return is_at_or_below


def _regex_test(text: str) -> _Test:
    try:
        expression = re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from error
    return lambda request: expression.match(request.compared_path()) is not None


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


__all__ = [
    "BadPath",
    "Choice",
    "MatchSpec",
    "PathRules",
    "ReadPath",
    "RouteSpec",
    "Router",
    "normalise_host",
    "normalise_path",
    "rewrite_path",
]
