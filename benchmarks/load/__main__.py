"""Command line of the load benchmark."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks import command_line
from benchmarks.load.cases import CASES
from benchmarks.load.environment import read_environment
from benchmarks.load.report import render_json, render_markdown
from benchmarks.load.runner import Options, Runner
from benchmarks.load.targets import TARGETS, Placement


def main(argv: Sequence[str] | None = None) -> int:
    parser = make_parser()
    args = parser.parse_args(argv)
    options = make_options(args)

    def measure(placement: Placement) -> tuple[str, str]:
        environment = read_environment(options.targets, placement)
        results = Runner(options, placement, command_line.say).run()
        return render_json(options, environment, results), render_markdown(options, environment, results)

    return command_line.run("benchmarks.load", parser, args, measure)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load",
        description="Compare lbproxy with HAProxy and nginx: equal features, one core, the same backend. "
        "`_tuned`: larger buffers, with large responses only. `lbproxy_full` and `_bare`: all protection on and off, "
        "in http_small only. `_two`: two processes or threads, on two cores. Prints Markdown tables to stdout and "
        "progress to stderr.",
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
    parser.add_argument(
        "--connections", type=command_line.at_least(1), default=32, help="client connections (default %(default)s)"
    )
    parser.add_argument("--subject", choices=TARGETS, default="lbproxy", help="what the ratios are about")
    parser.add_argument(
        "--peers",
        type=command_line.names(TARGETS, may_be_empty=True),
        default=tuple(name for name in TARGETS[1:] if not name.endswith("_two")),
        metavar="NAME[,...]",
        help="what it is compared with; '' for nothing (default: all others on one core)",
    )
    command_line.add_outputs(parser)
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


if __name__ == "__main__":
    sys.exit(main())
