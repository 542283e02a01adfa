"""What the commands share: exit statuses, errors for the user, the config that the options name."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from lbproxy.address import Address, parse_address
from lbproxy.cli import streams

if TYPE_CHECKING:
    from lbproxy.config.loader import Kept, Loaded

OK, FAILURE, USAGE = 0, 1, 2
DEFAULT_ADMIN = "127.0.0.1:8404"
LATENCY_FRESH_S = 60.0
"""Until then the latency of a server is shown as that of now, and later with its age; the dashboard has the same."""

Command = Callable[[argparse.Namespace], int]


class UsageError(Exception):
    """Options that cannot be combined. The text is one sentence for the user."""


class ConfigRefused(Exception):
    """The config has problems: one line for each."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))


def address_argument(text: str) -> Address:
    try:
        return parse_address(text, default_host="127.0.0.1")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def seconds_argument(text: str) -> float:
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = -1.0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds (above 0, at most 3600)")
    return value


def add_config(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("-c", "--config", metavar="FILE", help=what)


def add_file(parser: argparse.ArgumentParser, what: str) -> None:
    """The config file with its option or, as people type it, without."""
    add_config(parser, f"{what}; `-` is standard input")
    parser.add_argument("file", metavar="FILE", nargs="?", help="the same, without -c")


def named_file(args: argparse.Namespace) -> str | None:
    """The config file of the command line. Raises UsageError if two are named."""
    option: str | None = args.config
    word: str | None = getattr(args, "file", None)
    if option is not None and word is not None:
        raise UsageError(f"one config file is enough: {option} or {word}?")
    return word if option is None else option


def load_config(
    path: str, environ: Mapping[str, str], *, checks_files: bool = False, kept: Kept | None = None
) -> Loaded:
    """The config in a file; warnings go to stderr. Raises ConfigRefused.

    checks_files: read the certificates too. Who only asks a running lbproxy may not be allowed to.
    kept: gets what a reload need not read again.
    """
    from lbproxy.config import loader

    try:
        loaded = loader.load_file(path, environ, checks_files=checks_files, kept=kept)
    except loader.ConfigError as error:
        raise ConfigRefused([str(problem) for problem in error.problems]) from None
    for warning in loaded.warnings:
        streams.complain(f"{warning} (warning)")
    return loaded


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def waiting_apart(queue: Mapping[str, object]) -> str:
    """What is said of classes and keys behind how many wait; "" where there are none, or nobody waits."""
    text, classes, keys = "", queue.get("classes"), queue.get("keys")
    if not queue.get("depth"):
        return text
    if isinstance(classes, dict) and classes:
        text += "; " + ", ".join(f"{name} {number}" for name, number in classes.items())
    if isinstance(keys, int):
        text += f"; {keys} {'key has' if keys == 1 else 'keys have'} turns"
    return text
