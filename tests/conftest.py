"""What holds for all tests: which lbproxy they import, and how long property tests try.

`pytest tests/unit --under-test installed` imports the lbproxy that is installed, compiled as users have it, and not the
checkout's sources. `make fuzz` takes the hypothesis profile `fuzz`.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from tests.support import build

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
