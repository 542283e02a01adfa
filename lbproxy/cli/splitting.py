"""`lbproxy split`: see how routes share their requests out among pools, and change it."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote

from lbproxy import _client
from lbproxy.cli import asking
from lbproxy.cli.changing import Lbproxy, Report
from lbproxy.cli.common import OK, UsageError

Object = Mapping[str, object]

FILE: Final = "file"
_share = re.compile(r"([A-Za-z0-9_.-]{1,64})=(.*)").fullmatch


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        metavar="WORD",
        nargs="*",
        help="LISTENER/ROUTE (the name or position of a route; needed where several have a split), then POOL=SHARE for "
        "each pool that changes, or `file`: what the config file says; no share: show",
    )
    asking.add_options(parser)
    parser.add_argument("--json", action="store_true", help="print the answers of the admin API as they are")


def split(args: argparse.Namespace) -> int:
    """Show splits, or change one."""
    name, wanted = read_words(args.words)
    lbproxy = Lbproxy(*asking.admin_of(args, os.environ))
    _, told = lbproxy.call("GET", "/api/v1/splits", (200,))
    found = chosen(asking.objects(told.get("splits")), name, is_change=wanted is not None)
    report = Report(args.json)
    with report:
        for item in found:
            if wanted is None:
                report.add(item, page(item))
                continue
            path = f"/api/v1/splits/{quote(str(item.get('listener')), safe='')}/{quote(route_of(item), safe='')}"
            _, answer = lbproxy.call("PATCH", path, (200,), {"shares": wanted})
            now = answer.get("split")
            changed = "" if answer.get("changed") else ", already"
            report.add(answer, page(now if isinstance(now, dict) else item) + changed)
        if not found:
            report.say("no route has a split")
    return OK


def read_words(words: Sequence[str]) -> tuple[str | None, object]:
    """Which split, None if that is not said; and its shares: by pool, FILE, or None to show it. Raises UsageError."""
    name: str | None = None
    shares: dict[str, object] = {}
    is_file = False
    for position, word in enumerate(words):
        match = _share(word)
        if match is not None:
            if match[1] in shares:
                raise UsageError(f"{match[1]} is given twice")
            if not re.fullmatch(r"[0-9]{1,9}", match[2]):
                raise UsageError(f"{word}: a share is a whole number, in any scale")
            shares[match[1]] = int(match[2])
        elif word == FILE and position == len(words) - 1:
            is_file = True
        elif position == 0:
            name = word
        else:
            raise UsageError(f"{word}: write POOL=SHARE")
    if is_file and shares:
        raise UsageError("`file` stands alone: all shares are the file's then")
    return name, FILE if is_file else shares or None


def chosen(splits: Sequence[Object], name: str | None, *, is_change: bool) -> Sequence[Object]:
    """Those that are meant; of a change, one. Raises AdminError, UsageError."""
    if name is None:
        found = list(splits)
    else:
        found = [item for item in splits if name in names_of(item)] or [
            item for item in splits if name == item.get("listener")
        ]
    known = ", ".join(shown_name(item) for item in splits[:5])
    if not found and (name is not None or is_change):
        raise _client.AdminError(
            f"there is no split {name}; there is {known}" if splits and name else "there is no split"
        )
    if is_change and len(found) > 1:
        raise UsageError(f"there are several splits: say which, {known}")
    return found


def names_of(item: Object) -> tuple[str, ...]:
    """What a split may be called."""
    listener, name = item.get("listener"), item.get("name")
    by_position = f"{listener}/{item.get('route')}"
    return (by_position,) if name is None else (f"{listener}/{name}", str(name), by_position)


def shown_name(item: Object) -> str:
    return f"{item.get('listener')}/{route_of(item)}"


def route_of(item: Object) -> str:
    name = item.get("name")
    return str(item.get("route") if name is None else name)


def page(item: Object) -> str:
    """One split in a line."""
    shares = [
        f"{pool.get('pool')} {pool.get('share')} ({percent(pool.get('ratio'))})"
        for pool in asking.objects(item.get("pools"))
    ]
    how = f"by {item['by']}" if item.get("by") else "by chance"
    live = item.get("live")
    by = f"; set by {live.get('by')}" if isinstance(live, dict) else ""
    return f"{shown_name(item)} ({how}): {', '.join(shares)}{by}"


def percent(ratio: object) -> str:
    return f"{100 * ratio:.3g} %" if isinstance(ratio, (int, float)) else "-"
