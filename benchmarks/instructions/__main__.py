"""Count, and compare with what is recorded; with --record, record it. The status is 1 if something rose too much."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.instructions.counting import CountError, Missing, count, read_environment
from benchmarks.instructions.verdict import AGAIN, Record, from_json, judge, render, to_json

RECORDED: Final = Path(__file__).with_name("recorded.json")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--record", action="store_true", help=f"write {RECORDED.name} anew")
    args = parser.parse_args(argv)
    try:
        environment, counted = read_environment(), count()
    except CountError as error:
        what = f"{error} is missing; on Debian: make system" if isinstance(error, Missing) else error
        print(f"benchmarks.instructions: {what}", file=sys.stderr)
        return 2
    is_known = RECORDED.exists()
    verdicts = []
    if is_known:
        record = from_json(RECORDED.read_text())
        verdicts = judge(record, counted, environment)
        print(render(verdicts, record, environment))
    elif not args.record:
        print(f"nothing is recorded: run `{AGAIN}`")
    if args.record:
        RECORDED.write_text(to_json(Record(environment, counted)))
        print(f"recorded: {', '.join(f'{kind} {found.total:,}' for kind, found in counted.items())}")
        return 0
    return int(not is_known or any(verdict.is_rise for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
