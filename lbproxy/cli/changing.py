"""Commands that change servers of a running lbproxy: drain, ready, maint, weight, limit, add, remove."""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from lbproxy import _client
from lbproxy.address import Address
from lbproxy.cli import asking, streams
from lbproxy.cli.common import FAILURE, OK, UsageError

POLL_S: Final = 0.2
CALL_S: Final = 5.0
Object = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Target:
    """A server, by its names."""

    pool: str
    server: str

    def __str__(self) -> str:
        return f"{self.pool}/{self.server}"

    @property
    def path(self) -> str:
        return f"{servers_path(self.pool)}/{quote(self.server, safe='')}"


def servers_path(pool: str) -> str:
    return f"/api/v1/pools/{quote(pool, safe='')}/servers"


class Lbproxy:
    """The running one that the options name."""

    def __init__(self, address: Address, token: str | None) -> None:
        self.address = address
        self._token = token

    def call(self, method: str, path: str, statuses: tuple[int, ...], body: object = None) -> tuple[int, Object]:
        """One call. Raises AdminError, and UsageError for what the API finds wrong with the arguments."""
        answer = _client.call(self.address, method, path, token=self._token, timeout_s=CALL_S, body=body)
        told = _client.json_object(self.address, answer, f"{method} {path}", (*statuses, 404, 409, 422))
        if answer.status in statuses:
            return answer.status, told
        if answer.status == 422:
            raise UsageError(str(told.get("detail")))
        raise _client.AdminError(str(told.get("detail")))


# --- options ----------------------------------------------------------------------------------------------------------


def add_options(
    parser: argparse.ArgumentParser,
    *,
    waits: bool = False,
    has_value: str = "",
    all_but: bool = False,
    cuts: bool = False,
    keeps: bool = False,
    gives_back: bool = False,
) -> None:
    """waits: the command can wait for what is in flight; cuts: and end it. keeps: it can leave clients that stick to a
    server there. has_value: what its last word is. gives_back: it can leave the value to the config file."""
    parser.add_argument(
        "servers", metavar="POOL/SERVER", nargs="+", help="by name or address; * and ? stand for any characters"
    )
    if has_value:
        # argparse leaves nothing to it: `_words` takes it from the servers.
        parser.add_argument("value", metavar=has_value, nargs="?", help="the number; `file`: as --file")
    if gives_back:
        parser.add_argument(
            "--file", action="store_true", dest="gives_back", help="what the config file says, whatever that is"
        )
    if all_but:
        parser.add_argument("--all-but", action="store_true", help="all other servers of these pools")
    if cuts:
        parser.add_argument(
            "--after", metavar="TIME", help="cut what is still in flight so long after this, such as 30s; 0: at once"
        )
    if keeps:
        parser.add_argument(
            "--keep-sticky", action="store_true", help="clients whose cookie names the server stay, all others go"
        )
    if waits:
        parser.add_argument("--wait", action="store_true", help="return when nothing is in flight any more, else 1")
        asking.add_options(parser, 60.0, "with --wait: for so long (default 60)")
    else:
        asking.add_options(parser)
    parser.add_argument("--json", action="store_true", help="print the answers of the admin API as they are")


def add_options_of_add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "servers", metavar="POOL/ADDRESS", nargs="+", help="as in the config file, such as p/10.0.0.7:80"
    )
    parser.add_argument("--name", help="its name, if the address is not to be it")
    parser.add_argument("--weight", metavar="N", help="share of the traffic (default 1)")
    parser.add_argument("--limit", metavar="N", help="requests at once (max_inflight; default: the pool's)")
    parser.add_argument("--backup", action="store_true", help="used only while no other server is usable")
    asking.add_options(parser)
    parser.add_argument("--json", action="store_true", help="print the answers of the admin API as they are")


# --- which ------------------------------------------------------------------------------------------------------------


def targets(status: Object, patterns: Sequence[str], *, is_all_but: bool = False) -> list[Target]:
    """The servers that the patterns name, or all others of their pools, in the order of the status.

    Raises UsageError for what is no POOL/SERVER, AdminError for one that fits nothing.
    """
    known = dict(_known(status))
    found: set[Target] = set()
    pools: set[str] = set()
    for pattern in patterns:
        pool, server = named(pattern)
        fits = [
            target
            for target, names in known.items()
            if _fits(pool, target.pool) and (server in names or any(_fits(server, name) for name in names))
        ]
        exact = [target for target in fits if server in known[target]]
        if not fits:
            raise _client.AdminError(_no_server(pattern, known))
        found.update(exact or fits)
        pools.update(target.pool for target in fits)
    if is_all_but:
        return [target for target in known if target.pool in pools and target not in found]
    return [target for target in known if target in found]


def named(pattern: str) -> tuple[str, str]:
    """The pool and the server of a pattern. Raises UsageError."""
    pool, slash, server = pattern.partition("/")
    if not slash or not server:
        raise UsageError(f"{pattern}: write POOL/SERVER; {pool}/* is every server of the pool")
    return pool, server


def _known(status: Object) -> list[tuple[Target, tuple[str, ...]]]:
    """Servers that there are, each with what it may be called."""
    return [
        (Target(str(pool.get("name")), str(server.get("name"))), (str(server.get("name")), str(server.get("address"))))
        for pool in asking.objects(status.get("pools"))
        for server in asking.objects(pool.get("servers"))
        if server.get("state") != "unresolved"
    ]


def _fits(pattern: str, text: str) -> bool:
    """`*` and `?` only: brackets are part of IPv6 addresses."""
    parts = {"*": ".*", "?": "."}
    return re.fullmatch("".join(parts.get(char) or re.escape(char) for char in pattern), text, re.DOTALL) is not None


def _no_server(pattern: str, known: Mapping[Target, object]) -> str:
    from difflib import get_close_matches

    names = [str(target) for target in known]
    close = get_close_matches(pattern, names, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there is {', '.join(names[:5]) or 'none'}"
    return f"there is no server {pattern}; {hint}{' and more' if not close and len(names) > 5 else ''}"


# --- commands ---------------------------------------------------------------------------------------------------------


def change(args: argparse.Namespace) -> int:
    """drain, ready, maint, weight, limit: `args.key` and, but for the first three, `args.value`."""
    patterns, word = _words(args)
    for pattern in patterns:
        named(pattern)
    wanted = _wanted(args, word)
    lbproxy = Lbproxy(*asking.admin_of(args, os.environ))
    _, status = lbproxy.call("GET", "/api/v1/status", (200,))
    found = targets(status, patterns, is_all_but=getattr(args, "all_but", False))
    report = Report(args.json)
    with report:
        for target in found:
            _, told = lbproxy.call("PATCH", target.path, (200,), wanted)
            report.add(told, _changed(target, args.key, told))
        if not found:
            report.say("no server but those")
        return _wait(lbproxy, found, args, report) if getattr(args, "wait", False) else OK


def _words(args: argparse.Namespace) -> tuple[list[str], str]:
    """Which servers are meant, and the value."""
    if getattr(args, "gives_back", False):
        return args.servers, "file"
    if args.value is not None:
        return args.servers, args.value
    *patterns, word = args.servers
    if not patterns:
        raise UsageError(f"{word}: write POOL/SERVER and the value behind it, or --file")
    return patterns, word


def _wanted(args: argparse.Namespace, word: str) -> dict[str, object]:
    """The body of each call. What is wrong with it in itself is said before anybody is asked: raises UsageError."""
    from lbproxy.control.live_values import Refused, read_after, read_values

    wanted: dict[str, object] = {args.key: _number(word)}
    try:
        read_values(wanted)
        if getattr(args, "after", None) is not None:
            wanted["after"] = _number(args.after)
            read_after(wanted)
    except Refused as error:
        raise UsageError(str(error)) from None
    if getattr(args, "keep_sticky", False):
        wanted["keep_sticky"] = True
    return wanted


def _number(word: str) -> int | str:
    return int(word) if re.fullmatch(r"[0-9]{1,9}", word) else word


def remove(args: argparse.Namespace) -> int:
    for pattern in args.servers:
        named(pattern)
    lbproxy = Lbproxy(*asking.admin_of(args, os.environ))
    _, status = lbproxy.call("GET", "/api/v1/status", (200,))
    found = targets(status, args.servers)
    left: list[Target] = []
    report = Report(args.json)
    with report:
        for target in found:
            _, told = lbproxy.call("DELETE", target.path, (200, 202))
            if not told.get("removed"):
                left.append(target)
            report.add(
                told,
                f"{target}: removed" if told.get("removed") else f"{target}: goes when it is idle{_inflight(told)}",
            )
        return _wait(lbproxy, left, args, report) if args.wait else OK


def add(args: argparse.Namespace) -> int:
    if args.name and len(args.servers) > 1:
        raise UsageError("--name is for one server")
    servers = [_server(args, word) for word in args.servers]
    lbproxy = Lbproxy(*asking.admin_of(args, os.environ))
    report = Report(args.json)
    with report:
        for pool, wanted in servers:
            _, told = lbproxy.call("POST", servers_path(pool), (201,), wanted)
            for server in asking.objects(told.get("servers")):
                when = "takes traffic" if server.get("state") == "up" else "takes traffic after its first passing check"
                report.say(f"{pool}/{server.get('name')}: added; {when}")
            report.add(told, "")
        return OK


def _server(args: argparse.Namespace, word: str) -> tuple[str, dict[str, object]]:
    """The pool of a server to be added, and the body of the call. Raises UsageError."""
    from lbproxy.config.one_server import read_server
    from lbproxy.config.problems import ConfigError

    pool, slash, address = word.partition("/")
    if not slash or not address:
        raise UsageError(f"{word}: write POOL/ADDRESS")
    wanted: dict[str, object] = {"address": address}
    for key, option in (("name", args.name), ("weight", args.weight), ("max_inflight", args.limit)):
        if option is not None:
            wanted[key] = option if key == "name" else _number(option)
    if args.backup:
        wanted["backup"] = True
    try:
        read_server(wanted)
    except ConfigError as error:
        raise UsageError("; ".join(map(str, error.problems))) from None
    return pool, wanted


class Report:
    """What is printed: a sentence at once for each server, or all answers at the end, of a failed command too."""

    def __init__(self, is_json: bool) -> None:
        self._is_json = is_json
        self._answers: list[Object] = []

    def add(self, told: Object, sentence: str) -> None:
        self._answers.append(told)
        if sentence:
            self.say(sentence)

    def say(self, sentence: str) -> None:
        if not self._is_json:
            streams.say(sentence)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        if self._is_json:
            streams.say(json.dumps(self._answers, indent=2))


def _changed(target: Target, key: str, told: Object) -> str:
    changed, server = told.get("changed"), told.get("server")
    change = changed.get(key) if isinstance(changed, dict) else None
    name = "" if key == "admin" else f"{key} "
    if isinstance(change, dict):
        text = f"{target}: {name}{_value(change.get('old'))} -> {_value(change.get('new'))}"
    else:
        now = server.get(key) if isinstance(server, dict) else None
        text = f"{target}: {name}{_value(now)} already"
    return text + (_inflight(told) if key == "admin" else "")


def _value(value: object) -> str:
    return "off" if value is None else str(value)


def _inflight(told: Object) -> str:
    server = told.get("server")
    count = server.get("inflight") if isinstance(server, dict) else None
    cut_in = server.get("cut_in") if isinstance(server, dict) else None
    cut = f", which is cut after {cut_in:g} s" if isinstance(cut_in, (int, float)) else ""
    return f", {count} in flight{cut}" if count else ""


def _wait(lbproxy: Lbproxy, found: Sequence[Target], args: argparse.Namespace, report: Report) -> int:
    """Until nothing is in flight at any of them, or the time is over: then 1, and who is busy goes to stderr."""
    ends_at = time.monotonic() + args.timeout
    busy: dict[Target, object] = dict.fromkeys(found)
    while True:
        for target in list(busy):
            status, told = lbproxy.call("GET", target.path, (200, 404))
            server = told.get("server")
            state = server if isinstance(server, dict) else {}
            if status == 200 and state.get("admin") == "ready":
                raise _client.AdminError(f"{target} is ready again: somebody took the change back")
            busy[target] = state.get("inflight")
            if status == 404 or not busy[target]:
                del busy[target]
                report.say(f"{target}: {'gone' if status == 404 else 'idle'}")
        if not busy:
            return OK
        if time.monotonic() >= ends_at:
            for target, count in busy.items():
                streams.complain(f"{target} is still busy after {args.timeout:g} s: {count} in flight")
            return FAILURE
        time.sleep(POLL_S)
