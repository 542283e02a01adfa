"""What the command lines of the benchmarks have in common."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from benchmarks.load.errors import BenchmarkError
from benchmarks.load.runner import place
from benchmarks.load.targets import Placement


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Where to run, and where the results go."""
    parser.add_argument("--proxy-core", type=int, metavar="N", help="core of the proxies (default: the highest)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run and the medians")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write what is printed, for RESULTS.md")


def names(known: Collection[str], *, may_be_empty: bool = False) -> Callable[[str], tuple[str, ...]]:
    """An argument type: some of `known`, with commas, each once."""

    def parse(text: str) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        if not found and not may_be_empty:
            raise argparse.ArgumentTypeError("name at least one")
        for name in found:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(known)}")
        return found

    return parse


def at_least(least: int) -> Callable[[str], int]:
    """An argument type: a whole number, `least` or more."""

    def parse(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}")
        return number

    parse.__name__ = "number"  # argparse names it when the text is none
    return parse


def run(
    name: str,
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    measure: Callable[[Placement], tuple[str, str]],
) -> int:
    """Measure, write and print; `measure` makes the JSON and the Markdown. Returns the exit status."""
    if sys.platform != "linux":
        parser.error("this benchmark reads /proc and pins processes: it runs on Linux only")
    # An end by SIGTERM must pass the `finally`s that stop what was started.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        as_json, markdown = measure(place(os.sched_getaffinity(0), args.proxy_core))
    except BenchmarkError as error:
        say(f"{name}: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    if args.json:
        args.json.write_text(as_json)
    if args.markdown:
        args.markdown.write_text(markdown)
    print(markdown, end="")
    return 0


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)
