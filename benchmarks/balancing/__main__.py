"""Command line of the balancing benchmark."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks import command_line
from benchmarks.balancing.cases import CASES
from benchmarks.balancing.configs import POLICIES
from benchmarks.balancing.report import render_json, render_markdown
from benchmarks.balancing.runner import Options, Runner
from benchmarks.load.environment import read_environment
from benchmarks.load.targets import Placement

_MISSED = 3


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse_args(argv)
    options = make_options(args)
    missed: list[object] = []

    def measure(placement: Placement) -> tuple[str, str]:
        environment = read_environment(("lbproxy", "haproxy"), placement, ())
        results = Runner(options, placement, command_line.say).run()
        missed.extend(verdict for verdict in results.verdicts if not verdict.is_met)
        return render_json(options, environment, results), render_markdown(options, environment, results)

    status = command_line.run("benchmarks.balancing", parser, args, measure)
    return status or (_MISSED if args.check and missed else 0)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.balancing",
        description="Replay the same open-loop traces through lbproxy and HAProxy, in front of servers with slots. "
        "Prints Markdown tables to stdout and progress to stderr.",
    )
    parser.add_argument(
        "--case", type=command_line.names(CASES), default=tuple(CASES), metavar="NAME[,...]", help=", ".join(CASES)
    )
    parser.add_argument(
        "--long", action="store_true", help="what RESULTS.md holds: --repeats 5 --seconds 60 (two hours)"
    )
    parser.add_argument(
        "--policy",
        type=command_line.names(POLICIES),
        default=tuple(POLICIES),
        metavar="NAME[,...]",
        help=", ".join(POLICIES),
    )
    parser.add_argument("--repeats", type=int, metavar="N", help="repeats, each with its own traces (default 1)")
    parser.add_argument("--seconds", type=float, metavar="S", help="length of a trace (default 10)")
    parser.add_argument("--check", action="store_true", help=f"end with status {_MISSED} if something was missed")
    command_line.add_outputs(parser)
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


if __name__ == "__main__":
    sys.exit(main())
