"""What holds for all tests: which lbproxy they import, how long property tests try, and which tests come first.

`pytest tests/unit --under-test installed` imports the lbproxy that is installed, compiled as users have it, and not the
checkout's sources. `make fuzz` takes the hypothesis profile `fuzz`.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from tests.support import build, ordering

# No deadline: the machine is shared, and a slow example is no defect. The same examples each time: a change that passed
# passes again, and what chance finds is found by `make fuzz`. Failing examples are printed to be repeated.
settings.register_profile("test", deadline=None, max_examples=100, print_blob=True, derandomize=True)
settings.register_profile(
    "fuzz", deadline=None, max_examples=20_000, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("test")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--under-test",
        choices=("sources", "installed"),
        default="sources",
        help="which lbproxy the tests import: the checkout's sources, or what is installed (compiled)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Before any test is imported."""
    if config.getoption("--under-test") == "installed":
        build.import_installed()


def pytest_report_header() -> list[str]:
    """Which lbproxy is tested."""
    return [
        f"tests import {build.imported()}",
        f"scenario tests start {' '.join(build.COMMAND)}: {build.what_is_wrong() or 'compiled, as in the checkout'}",
    ]


@pytest.hookimpl(trylast=True)  # when it is known which of them run
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    n_pieces = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    items[:] = ordering.long_first(items, _longest_s, lambda item: item.path, n_pieces)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the collector what is imported and collected, which lives as long as the process.

    There are a million objects when 12,000 tests have been collected. To look through them took a third of the time of
    the collection, and a sixth of that of the tests: each full collection did it, those that come by themselves and
    those of tests that check that nothing is left to the collector. So does one that frees the little that is garbage
    by then (half a second to one for each of the nine processes of `make test`), hence there is none.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _longest_s(item: pytest.Item) -> float:
    """What a slow test may take; 0 for the others."""
    if item.get_closest_marker("slow") is None:
        return 0.0
    limit = item.get_closest_marker("timeout")
    return float(limit.args[0] if limit is not None else item.config.getini("timeout"))
