"""Command line of the balancing benchmark."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from benchmarks.balancing.cases import CASES
from benchmarks.balancing.configs import POLICIES
from benchmarks.balancing.report import render_json, render_markdown
from benchmarks.balancing.runner import Options, Runner
from benchmarks.load.environment import read_environment
from benchmarks.load.errors import BenchmarkError
from benchmarks.load.runner import place

_MISSED = 3


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse_args(argv)
    if sys.platform != "linux":
        parser.error("this benchmark reads /proc and pins processes: it runs on Linux only")
    options = make_options(args)
    # An end by SIGTERM must pass the `finally`s that stop what was started.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        placement = place(os.sched_getaffinity(0), args.proxy_core)
        environment = read_environment(("lbproxy", "haproxy"), placement, ())
        results = Runner(options, placement, _say).run()
    except BenchmarkError as error:
        _say(f"benchmarks.balancing: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    markdown = render_markdown(options, environment, results)
    if args.json:
        args.json.write_text(render_json(options, environment, results))
    if args.markdown:
        args.markdown.write_text(markdown)
    print(markdown, end="")
    return _MISSED if args.check and not all(verdict.is_met for verdict in results.verdicts) else 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.balancing",
        description="Replay the same open-loop traces through lbproxy and HAProxy, in front of servers with slots. "
        "Prints Markdown tables to stdout and progress to stderr.",
    )
    parser.add_argument("--case", type=_cases, default=tuple(CASES), metavar="NAME[,...]", help=", ".join(CASES))
    parser.add_argument(
        "--long", action="store_true", help="what RESULTS.md holds: --repeats 5 --seconds 60 (two hours)"
    )
    parser.add_argument(
        "--policy", type=_policies, default=tuple(POLICIES), metavar="NAME[,...]", help=", ".join(POLICIES)
    )
    parser.add_argument("--repeats", type=int, metavar="N", help="repeats, each with its own traces (default 1)")
    parser.add_argument("--seconds", type=float, metavar="S", help="length of a trace (default 10)")
    parser.add_argument("--proxy-core", type=int, metavar="N", help="core of the proxies (default: the highest)")
    parser.add_argument("--check", action="store_true", help=f"end with status {_MISSED} if something was missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run and verdict")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write what is printed, for RESULTS.md")
    return parser


def make_options(args: argparse.Namespace) -> Options:
    seconds = args.seconds or (60.0 if args.long else 10.0)
    return Options(
        cases=args.case,
        policies=args.policy,
        repeats=args.repeats or (5 if args.long else 1),
        seconds=seconds,
        warm_up_s=min(5.0, seconds / 5),
    )


def _cases(text: str) -> tuple[str, ...]:
    return _names(text, CASES)


def _policies(text: str) -> tuple[str, ...]:
    return _names(text, POLICIES)


def _names(text: str, known: Collection[str]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise argparse.ArgumentTypeError("name at least one")
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(known)}")
    return names


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
