"""Command line of the memory benchmark."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks import command_line
from benchmarks.load.environment import read_environment
from benchmarks.load.targets import Placement
from benchmarks.memory.measure import TARGETS, Options, Runner
from benchmarks.memory.report import render_json, render_markdown


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse_args(argv)
    options = Options(args.targets, args.connections, args.rounds)

    def measure(placement: Placement) -> tuple[str, str]:
        environment = read_environment(options.targets, placement, ())
        results = Runner(options, placement, command_line.say).run()
        return render_json(options, environment, results), render_markdown(options, environment, results)

    return command_line.run("benchmarks.memory", parser, args, measure)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory",
        description="Memory for each idle client connection and for each request under way. Prints a Markdown table "
        "to stdout and progress to stderr.",
    )
    parser.add_argument(
        "--targets",
        type=command_line.names(TARGETS),
        default=TARGETS[:2],
        metavar="NAME[,...]",
        help=f"{', '.join(TARGETS)} (default: {','.join(TARGETS[:2])})",
    )
    parser.add_argument(
        "--connections",
        type=command_line.at_least(1),
        default=5000,
        help="how many are counted (default %(default)s)",
    )
    parser.add_argument("--rounds", type=command_line.at_least(1), default=3, help="rounds (default %(default)s)")
    command_line.add_outputs(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
