"""Command line of the latency benchmark."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks import command_line
from benchmarks.latency.measure import TARGETS, Options, Runner
from benchmarks.latency.report import render_json, render_markdown
from benchmarks.load.environment import read_environment
from benchmarks.load.targets import Placement


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse_args(argv)
    options = make_options(args)

    def measure(placement: Placement) -> tuple[str, str]:
        environment = read_environment(options.targets, placement)
        results = Runner(options, placement, command_line.say).run()
        return render_json(options, environment, results), render_markdown(options, environment, results)

    return command_line.run("benchmarks.latency", parser, args, measure)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency",
        description="Latency in an open loop, at shares of HAProxy's capacity on this machine: p50, p99 and p99.9 from "
        "the time at which a request was due. Prints Markdown tables to stdout and progress to stderr.",
    )
    parser.add_argument(
        "--targets",
        type=command_line.names(TARGETS),
        default=TARGETS[:2],
        metavar="NAME[,...]",
        help=f"{', '.join(TARGETS)} (default: {','.join(TARGETS[:2])})",
    )
    parser.add_argument(
        "--percent",
        type=command_line.names([str(number) for number in range(1, 101)]),
        default=("50", "80"),
        metavar="N[,...]",
        help="of HAProxy's capacity (default: 50,80)",
    )
    parser.add_argument("--rounds", type=command_line.at_least(1), default=5, help="rounds (default %(default)s)")
    parser.add_argument("--seconds", type=command_line.at_least(1), default=8, help="of one run (default %(default)s)")
    parser.add_argument(
        "--connections", type=command_line.at_least(1), default=64, help="of the generator (default %(default)s)"
    )
    command_line.add_outputs(parser)
    return parser


def make_options(args: argparse.Namespace) -> Options:
    return Options(
        targets=args.targets,
        shares=tuple(int(number) / 100 for number in args.percent),
        rounds=args.rounds,
        seconds=float(args.seconds),
        warm_up_s=min(1.0, args.seconds / 4),
        connections=args.connections,
    )


if __name__ == "__main__":
    sys.exit(main())
