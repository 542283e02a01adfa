"""Command line of the benchmark of HTTP/2."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks import command_line
from benchmarks.h2.cases import CASES
from benchmarks.h2.report import render_json, render_markdown
from benchmarks.h2.runner import TARGETS, Options, Runner
from benchmarks.load.environment import read_environment
from benchmarks.load.targets import Placement


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse_args(argv)
    options = Options(args.case, args.rounds, args.seconds)

    def measure(placement: Placement) -> tuple[str, str]:
        environment = read_environment(TARGETS, placement, ())
        results = Runner(options, placement, command_line.say).run()
        return render_json(options, environment, results), render_markdown(options, environment, results)

    return command_line.run("benchmarks.h2", parser, args, measure)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.h2",
        description="Compare lbproxy with HAProxy between clients and servers of HTTP/2: one core, the same servers. "
        "Prints Markdown tables to stdout and progress to stderr.",
    )
    parser.add_argument(
        "--case", type=command_line.names(CASES), default=tuple(CASES), metavar="NAME[,...]", help=", ".join(CASES)
    )
    parser.add_argument(
        "--rounds", type=command_line.at_least(1), default=3, help="interleaved rounds (default %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=command_line.at_least(1), default=4, help="length of one run (default %(default)s)"
    )
    command_line.add_outputs(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
