"""As tests/fuzz/run.py, with the lbproxy that is installed, compiled: `python -m tests.fuzz --count 1000000`."""

from __future__ import annotations

import sys

from tests.support import build


def main() -> int:
    build.import_installed()
    print(build.imported(), build.what_is_wrong(), flush=True)
    from tests.fuzz import run  # not before: it imports lbproxy

    return run.main()


if __name__ == "__main__":
    sys.exit(main())
