"""Command line of the load benchmark."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from benchmarks.load.cases import CASES
from benchmarks.load.environment import read_environment
from benchmarks.load.errors import BenchmarkError
from benchmarks.load.report import render_json, render_markdown
from benchmarks.load.runner import Options, Runner, place
from benchmarks.load.targets import TARGETS


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse_args(argv)
    options = make_options(args)
    if sys.platform != "linux":
        parser.error("this benchmark reads /proc and pins processes: it runs on Linux only")
    # An end by SIGTERM must pass the `finally`s that stop what was started.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        placement = place(os.sched_getaffinity(0), args.proxy_core)
        environment = read_environment(options.targets, placement)
        results = Runner(options, placement, _say).run()
    except BenchmarkError as error:
        _say(f"benchmarks.load: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    markdown = render_markdown(options, environment, results)
    if args.json:
        args.json.write_text(render_json(options, environment, results))
    if args.markdown:
        args.markdown.write_text(markdown)
    print(markdown, end="")
    return 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load",
        description="Compare lbproxy with HAProxy and nginx: equal features, one core, the same backend. "
        "`_tuned`: larger buffers, with large responses only. `lbproxy_full` and `_bare`: all protection on and off, "
        "in http_small only. Prints Markdown tables to stdout and progress to stderr.",
    )
    parser.add_argument("--case", type=_names(CASES), default=tuple(CASES), metavar="NAME[,...]", help=", ".join(CASES))
    parser.add_argument("--rounds", type=_positive, default=3, help="interleaved rounds (default %(default)s)")
    parser.add_argument("--seconds", type=_positive, default=4, help="length of one run (default %(default)s)")
    parser.add_argument("--connections", type=_positive, default=32, help="client connections (default %(default)s)")
    parser.add_argument("--subject", choices=TARGETS, default="lbproxy", help="what the ratios are about")
    parser.add_argument(
        "--peers",
        type=_names(TARGETS, may_be_empty=True),
        default=TARGETS[1:],
        metavar="NAME[,...]",
        help="what it is compared with; '' for nothing (default: all others)",
    )
    parser.add_argument("--proxy-core", type=int, metavar="N", help="core of the proxies (default: the highest)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run, the medians and the ratios")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write what is printed, for RESULTS.md")
    return parser


def make_options(args: argparse.Namespace) -> Options:
    return Options(
        cases=args.case,
        subject=args.subject,
        peers=tuple(peer for peer in args.peers if peer != args.subject),
        rounds=args.rounds,
        seconds=args.seconds,
        connections=args.connections,
    )


def _names(known: Collection[str], *, may_be_empty: bool = False) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        if not names and not may_be_empty:
            raise argparse.ArgumentTypeError("name at least one")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(known)}")
        return names

    return parse


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
