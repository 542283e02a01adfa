"""A file that lists servers, `servers_file` of a pool: the rules and complaints of `servers`, with its own places.

Its list is read as that of a pool in a config file that says nothing else, so whatever is wrong is said in the words
that people know, with line and column of this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Final

from lbproxy.config.checks import check
from lbproxy.config.model import Config
from lbproxy.config.nodes import EMPTY
from lbproxy.config.problems import ConfigError, Path, Problem, Unusable
from lbproxy.config.server_model import ServerSpec
from lbproxy.config.source import Document, parse, read_text
from lbproxy.config.units import shown
from lbproxy.config.validation import validate

_POOL: Final = "listeners: [{bind: 'unix:/p', pool: p}]\npools: {p: {servers: []}}\n"
_PLACE: Final[Path] = ("pools", "p", "servers")
_PREFIX: Final = "pools.p.servers"
NAMES: Final = "is a name, and a servers_file has addresses only"


@dataclass(slots=True)
class Looked:
    """What the files list, what is wrong in them, and which are not there: that may be so, they are waited for."""

    n_servers: int = 0
    problems: list[Problem] = field(default_factory=list)
    missing: list[Unusable] = field(default_factory=list)


def read_servers_file(path: str | FilePath, environ: Mapping[str, str]) -> tuple[ServerSpec, ...]:
    """The servers that a file lists. environ: what `${VAR}` is replaced from. Raises ConfigError."""
    return parse_servers(read_text(path), str(path), environ)


def parse_servers(text: str, file: str, environ: Mapping[str, str]) -> tuple[ServerSpec, ...]:
    """Like `read_servers_file`; `file` stands in the messages. An empty text is no empty list: it was cut off."""
    try:
        listed = parse(text, file, environ)
    except ConfigError as error:
        if text.strip() and error.problems[-1].message != EMPTY:
            raise
        last = error.problems[-1]
        message, hint = "is empty", "write [] for a list of no servers"
        raise ConfigError((Problem(file, last.line, last.column, "", message, hint),)) from None
    if listed.data == [] and not listed.problems:
        return ()
    if not isinstance(listed.data, list):
        place = listed.place(())
        message = f"expected a list of servers, got {shown(listed.data)}"
        raise ConfigError((Problem(file, place.line, place.column, "", message, "begin each with `- `"),))
    document = _as_pool(listed)
    config = validate(document)
    if config is not None:
        check(config, document)
        for index, item in enumerate(listed.data):
            _refuse_name(item, (*_PLACE, index), document)
    problems = sorted(document.problems, key=lambda problem: (problem.line, problem.column))
    errors = tuple(_as_listed(problem) for problem in problems if not problem.is_warning)
    if errors or config is None:
        raise ConfigError(errors)
    return config.pools["p"].servers


def _as_pool(listed: Document) -> Document:
    """The list in place of the `servers` of a pool, with the places that its items have in the file."""
    made = parse(_POOL, listed.file, {})
    made.data["pools"]["p"]["servers"] = listed.data  # type: ignore[index]
    for theirs, ours in ((listed.keys, made.keys), (listed.values, made.values)):
        ours.update({(*_PLACE, *path): place for path, place in theirs.items()})
    made.values[()] = listed.place(())
    for known, own in ((listed.blamed, made.blamed), (listed.flow, made.flow)):
        own.update((*_PLACE, *path) for path in known)
    made.problems += [
        Problem(item.file, item.line, item.column, _PREFIX + item.path, item.message, item.suggestion, item.is_warning)
        for item in listed.problems
    ]
    return made


def _as_listed(problem: Problem) -> Problem:
    path = problem.path.removeprefix(_PREFIX)
    return Problem(problem.file, problem.line, problem.column, path, problem.message, problem.suggestion)


def _refuse_name(item: object, path: Path, document: Document) -> None:
    """Who writes such a file knows addresses; names would be followed by nobody."""
    try:
        spec = ServerSpec.model_validate(item)
    except ValueError:
        return  # was said
    if not spec.address.is_literal:
        document.object_to(path, f"{spec.address.host} {NAMES}", "put the name into `servers` of the config")


def look_at(config: Config, base_dir: str | FilePath, environ: Mapping[str, str]) -> Looked:
    """Read every servers_file of a config. base_dir: where relative paths begin."""
    looked = Looked()
    for name, pool in config.pools.items():
        if pool.servers_file is None:
            continue
        path = FilePath(base_dir) / pool.servers_file
        if not path.exists():
            message = f"there is no file {path} yet; the pool has none of its servers until there is one"
            looked.missing.append(Unusable(("pools", name, "servers_file"), message))
            continue
        try:
            looked.n_servers += len(read_servers_file(path, environ))
        except ConfigError as error:
            looked.problems += error.problems
    return looked
