"""`lbproxy explain`: why a request would go where it would go, or what came of one that has been."""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

from lbproxy import _client
from lbproxy.cli import asking, explain_page, streams
from lbproxy.cli.common import OK, USAGE, UsageError

_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_URL: Final = re.compile(r"https?://(?P<host>[^/?#]+)(?P<path>[^#]*)")
_UNIX: Final = "unix"
_ID: Final = re.compile(r"[0-9a-f]{32}")  # as lbproxy makes them; a trusted proxy's may be anything


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "request",
        metavar="REQUEST",
        nargs="*",
        help="METHOD PATH, or PATH alone (GET): a request as it would be sent; or the id of one that has been "
        "(X-Request-ID of its answer, request_id in the access log)",
    )
    parser.add_argument(
        "-H", "--header", metavar="NAME:VALUE", action="append", default=[], help="a header; repeat it for more"
    )
    parser.add_argument(
        "-d", "--data", metavar="JSON", help="the body, or its beginning, where that says where the request goes"
    )
    parser.add_argument("--host", help="the Host field (default localhost)")
    parser.add_argument("--from", dest="peer", metavar="IP", help="whom the connection comes from (default 127.0.0.1)")
    parser.add_argument("--listener", metavar="NAME", help="which listener gets it (default: the first for HTTP)")
    parser.add_argument("--json", action="store_true", help="print the answer of the admin API as it is")
    asking.add_options(parser)


def parameters(args: argparse.Namespace) -> list[tuple[str, str]]:
    """What the admin address is asked. Raises UsageError."""
    words: Sequence[str] = args.request
    named = [("host", args.host), ("from", args.peer), ("listener", args.listener), ("body", args.data)]
    options = [(name, value) for name, value in named if value is not None] + [("header", text) for text in args.header]
    is_path = [word.startswith(("/", "*")) or _URL.match(word) is not None for word in words]
    if len(words) == 1 and not is_path[0] and words[0] not in _METHODS:
        if options:
            raise UsageError(f"{words[0]} is taken for the id of a request, which has no options; or write METHOD PATH")
        return [("request_id", words[0])]
    if len(words) > 2:
        raise UsageError("write METHOD PATH, or PATH, or the id of a request; quote a path from the shell")
    method, path = "GET", "/"
    for word, is_its in zip(words, is_path, strict=True):
        if is_its and (url := _URL.match(word)):
            path = url["path"] if url["path"].startswith("/") else f"/{url['path']}"
            if args.host is None:
                options.insert(0, ("host", url["host"]))
        elif is_its:
            path = word
        elif word is words[0]:
            method = word
        else:
            raise UsageError(f"{word}: a path begins with /")
    for text in args.header:
        name, colon, _ = text.partition(":")
        if not colon or not name.strip():
            raise UsageError(f"header: {text[:200]!r} is not name:value")
    if args.peer not in (None, _UNIX) and not _is_address(args.peer):
        raise UsageError(f"from: {args.peer!r} is neither an IP address nor {_UNIX}")
    return [("method", method), ("path", path), *options]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def explain(args: argparse.Namespace) -> int:
    asked = parameters(args)
    address, token = asking.admin_of(args, os.environ)
    path = f"/api/v1/explain?{urlencode(asked)}"
    answer = _client.call(address, "GET", path, token=token, timeout_s=args.timeout)
    told = _client.json_object(address, answer, "GET /api/v1/explain", (200, 404, 422))
    detail = told.get("detail")
    if answer.status != 200:
        if not isinstance(detail, str) or detail.startswith("There is nothing at this path"):
            raise _client.AdminError(f"{address} does not know explain: it is an lbproxy of another version")
        if answer.status == 422:
            streams.complain(f"lbproxy explain: {detail}")
            return USAGE
        if asked[0][0] == "request_id" and _ID.fullmatch(asked[0][1]) is None:
            detail += f"; if a path is meant, it begins with /: lbproxy explain /{asked[0][1]}"
        raise _client.AdminError(detail)
    if args.json:
        streams.say(json.dumps(told, indent=2))
    elif asked[0][0] == "request_id":
        streams.say(explain_page.past(told))
    else:
        streams.say(explain_page.page(told))
    return OK
