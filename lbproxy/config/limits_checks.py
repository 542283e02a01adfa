"""What must hold between API keys, rate limits and the rest of a config; and the file of keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as FilePath

from lbproxy.config.certificates import FileProblem
from lbproxy.config.http_rules import HeadMatch
from lbproxy.config.key_file import read_key_file
from lbproxy.config.model import Config
from lbproxy.config.problems import Path
from lbproxy.config.source import Document
from lbproxy.config.tls_checks import absolute

LONGEST_S = 366 * 86400.0
_NO_KEYS = "there are no `api_keys`, so no request has a key"


def check_limits(config: Config, document: Document) -> None:
    """Complain of what cannot be; warn of what has no effect."""
    if config.api_keys is None:
        for path in _uses_of_keys(config):
            document.object_to(path, _NO_KEYS, "add `api_keys: {file: ...}`", at_key=True)
    seen: dict[str, int] = {}
    for index, limit in enumerate(config.rate_limits):
        place: Path = ("rate_limits", index)
        first = seen.setdefault(limit.label, index)
        if first != index:
            where = (*place, "name") if limit.name else place
            document.object_to(where, f"rate_limits[{first}] is called {limit.label} too", "give each a `name`")
        full_s = limit.most_at_once * limit.rate.seconds / limit.rate.count
        if full_s > LONGEST_S:
            days = round(full_s / 86400)
            document.object_to(
                (*place, "burst"), f"takes {days} days to be full again at this rate", "a year is the most"
            )
    if not any(listener.mode == "http" for listener in config.listeners) and not document.blamed:
        for name, value in (("api_keys", config.api_keys), ("rate_limits", config.rate_limits)):
            if value:
                document.warn((name,), "has no effect: there is no listener of HTTP", at_key=True)


def _uses_of_keys(config: Config) -> Iterator[Path]:
    """Everything that has no meaning without keys."""

    def in_match(match: HeadMatch | None, path: Path) -> Iterator[Path]:
        if match is not None and match.api_key is not None:
            yield (*path, "match", "api_key")

    for index, limit in enumerate(config.rate_limits):
        if limit.key == "api_key":
            yield ("rate_limits", index, "key")
        yield from in_match(limit.match, ("rate_limits", index))
    for name, pool in config.pools.items():
        if pool.queue.fair_by == "api_key":
            yield ("pools", name, "queue", "fair_by")
    for index, listener in enumerate(config.listeners):
        for position, route in enumerate(listener.routes):
            place: Path = ("listeners", index, "routes", position)
            yield from in_match(route.match, place)
            if route.api_keys not in (None, "off"):
                yield (*place, "api_keys")


def check_key_file(config: Config, document: Document, base_dir: str | FilePath) -> None:
    """The file can be read, and has the keys that the config names."""
    if config.api_keys is None:
        return
    try:
        ring = read_key_file(absolute(config.api_keys.file, base_dir))
    except FileProblem as problem:
        document.object_to(("api_keys", "file"), problem.message, problem.suggestion)
        return
    for path, name in _names_of_keys(config):
        if name != "*" and name not in ring.names:
            document.warn(path, f"{config.api_keys.file} has no key of the name {name}")


def _names_of_keys(config: Config) -> Iterator[tuple[Path, str]]:
    for index, limit in enumerate(config.rate_limits):
        if limit.match is not None and limit.match.api_key is not None:
            yield ("rate_limits", index, "match", "api_key"), limit.match.api_key
    for index, listener in enumerate(config.listeners):
        for position, route in enumerate(listener.routes):
            place: Path = ("listeners", index, "routes", position)
            if route.match is not None and route.match.api_key is not None:
                yield (*place, "match", "api_key"), route.match.api_key
            if isinstance(route.api_keys, tuple):
                for number, name in enumerate(route.api_keys):
                    yield (*place, "api_keys", number), name
