"""`lbproxy top`: the servers of a running lbproxy and their rates, again and again.

With textual, at a terminal, it is a screen with keys (cli/top_screen.py). Otherwise it is text: at a terminal the page
is drawn anew, anywhere else one page follows the other, so that it can be piped and logged.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
import time
from typing import Final

from lbproxy import _client
from lbproxy.address import Address
from lbproxy.cli import asking, streams, top_page
from lbproxy.cli.common import OK, seconds_argument
from lbproxy.cli.top_feed import follow
from lbproxy.cli.top_view import SORTS, View

_CLEAR: Final = "\x1b[H\x1b[2J"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="print one page and exit")
    parser.add_argument(
        "--interval", metavar="SECONDS", type=seconds_argument, default=1.0, help="from page to page (default 1)"
    )
    parser.add_argument("--plain", action="store_true", help="text without keys, even where textual is installed")
    parser.add_argument("--sort", choices=SORTS, default=SORTS[0], help="order of the servers (default config)")
    parser.add_argument(
        "--filter", metavar="TEXT", default="", help="only servers with this in pool, name, address or state"
    )
    asking.add_options(parser, takes_file=True)


def top(args: argparse.Namespace) -> int:
    address, token = asking.admin_of(args, os.environ)
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    if args.once:
        return _once(args, address, token)
    if is_terminal and not args.plain and sys.stdin.isatty() and importlib.util.find_spec("textual") is not None:
        from lbproxy.cli import top_screen

        return top_screen.run(address, token, args.timeout, args.sort, args.filter)
    try:
        return _again_and_again(args, address, token, is_terminal=is_terminal)
    except KeyboardInterrupt:
        return OK  # how it ends


def _once(args: argparse.Namespace, address: Address, token: str | None) -> int:
    view = View()
    n_rates = 0
    for kind, data in _client.events(address, token=token, timeout_s=args.timeout):
        view.take(kind, data)
        n_rates += kind == "rates"
        if n_rates == 2:  # the first is about a time that nobody looked at
            streams.say(_page(view, args))
            return OK
    raise _client.AdminError(f"{address} is stopping")


def _again_and_again(args: argparse.Namespace, address: Address, token: str | None, *, is_terminal: bool) -> int:
    view = View()
    due_at = 0.0
    for kind, data in follow(address, token, args.timeout, streams.complain, time.sleep):
        view.take(kind, data)
        now = time.monotonic()
        if kind == "rates" and now >= due_at:
            due_at = now + args.interval - 0.5  # rates come once a second, a little early or late
            text = _page(view, args)
            streams.write(f"{_CLEAR}{text}\n" if is_terminal else f"{text}\n\n")
    return OK


def _page(view: View, args: argparse.Namespace) -> str:
    width = shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None
    return top_page.page(view, sort=args.sort, wanted=args.filter, width=width)
