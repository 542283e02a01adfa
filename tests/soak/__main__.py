"""Long runs: `python -m tests.soak gunicorn|chaos|hostile`. Ends with status 1 if something was not as it must be."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.soak import chaos, gunicorn, hostile


def main(argv: Sequence[str] | None = None) -> int:
    args = make_parser().parse_args(argv)
    directory = Path(tempfile.mkdtemp(prefix="lbproxy-soak-"))
    print(f"logs are in {directory}", file=sys.stderr)
    try:
        lines, complaints = args.run(directory, args)
    except AssertionError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    print("\n".join([*lines, *(f"  MISSED: {complaint}" for complaint in complaints)]))
    return 1 if complaints else 0


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="(default %(default)s)")
    kinds = parser.add_subparsers(required=True)
    worker = kinds.add_parser("gunicorn", help="POSTs at awkward intervals to gunicorns that close and restart")
    worker.add_argument("--worker-class", choices=("sync", "gthread"), default="gthread")
    worker.add_argument("--posts", type=int, default=100_000, help="for each kind of pool (default %(default)s)")
    worker.add_argument(
        "--groups", type=int, default=16, help="of clients, for each kind of pool (default %(default)s)"
    )
    worker.add_argument("--size", type=int, default=32, help="clients in a group (default %(default)s)")
    worker.add_argument("--servers", type=int, default=12, help="(default %(default)s)")
    worker.set_defaults(run=_gunicorn)
    disorder = kinds.add_parser("chaos", help="kills, stalls, resets and aborts at random")
    disorder.add_argument("--seconds", type=float, default=600.0, help="(default %(default)s)")
    disorder.add_argument(
        "--warm-up", type=float, default=300.0, help="seconds before memory is noted (default %(default)s)"
    )
    disorder.add_argument("--workers", type=int, default=1, help="(default %(default)s)")
    disorder.add_argument(
        "--kill-every", type=float, default=5.0, help="seconds; of several workers one is killed (default %(default)s)"
    )
    disorder.set_defaults(run=_chaos)
    attack = kinds.add_parser("hostile", help="heads that were made to be dear, none of them twice")
    attack.add_argument("--heads", type=int, default=1_000_000, help="(default %(default)s)")
    attack.set_defaults(run=_hostile)
    return parser


def _gunicorn(directory: Path, args: argparse.Namespace) -> tuple[list[str], list[str]]:
    report = gunicorn.run(
        directory,
        args.worker_class,
        posts=args.posts,
        groups=args.groups,
        size=args.size,
        servers=args.servers,
        seed=args.seed,
    )
    return report.lines(), report.complaints()


def _chaos(directory: Path, args: argparse.Namespace) -> tuple[list[str], list[str]]:
    report = chaos.run(
        directory,
        seconds=args.seconds,
        seed=args.seed,
        warm_up_s=args.warm_up,
        workers=args.workers,
        kill_every_s=args.kill_every,
    )
    return report.lines(), report.complaints()


def _hostile(directory: Path, args: argparse.Namespace) -> tuple[list[str], list[str]]:
    report = hostile.run(directory, heads=args.heads, seed=args.seed)
    return report.lines(), report.complaints()


if __name__ == "__main__":
    sys.exit(main())
