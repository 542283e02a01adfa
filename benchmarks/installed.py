"""Runs a benchmark of this checkout with the lbproxy that is installed, which is compiled, and not with the sources.

python -P benchmarks/installed.py benchmarks.micro.hot_path [ARGUMENTS]
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parent.parent))  # behind site-packages
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
