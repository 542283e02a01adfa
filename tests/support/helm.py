"""Helm, in a process of its own: what it makes of a chart with some values.

`python -m tests.support.helm CHART` reads a list of values from its standard input, and writes what each makes, both as
JSON.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.servers import missing

RELEASE = "rel"
NAMESPACE = "models"
LIBRARY = "helm_python"
_ROOT = Path(__file__).resolve().parents[2]


def rendered(chart: Path, values: Sequence[Mapping[str, object]]) -> list[dict[str, str]]:
    """For each values the text of each template, by its file's name; `error` where Helm refuses them."""
    if importlib.util.find_spec(LIBRARY) is None:
        if platform.machine() != "x86_64":
            pytest.skip("there is no Helm as a library for this processor")
        missing("helm-python-sdk", "pip install '.[dev]'")
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.helm", str(chart)],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
        cwd=_ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    made: list[dict[str, str]] = json.loads(done.stdout)
    return made


def _main() -> None:
    from helm_python.chart import Chart, lint
    from helm_python.errors import HelmError

    path = sys.argv[1]
    found: list[dict[str, str]] = []
    with Chart.load(path) as chart:
        for values in json.load(sys.stdin):
            try:
                texts = chart.render(values=values, name=RELEASE, namespace=NAMESPACE)
            except HelmError as error:
                found.append({"error": str(error)})
            else:
                found.append({Path(name).name: text for name, text in texts.items()})
    problems = lint(path)["errors"]
    assert not problems, problems
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    _main()
