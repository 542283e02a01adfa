"""What holds for all tests: which lbproxy they import, and how long property tests try.

`LBPROXY_UNDER_TEST=installed pytest tests/unit` imports the lbproxy that is installed, compiled as users have it, and
not the checkout's sources. `make fuzz` takes the hypothesis profile `fuzz`.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.support import build

if build.wants_installed():
    build.import_installed()

# No deadline: the machine is shared, and a slow example is no defect. Failing examples are printed to be repeated.
settings.register_profile("test", deadline=None, max_examples=100, print_blob=True)
settings.register_profile(
    "fuzz", deadline=None, max_examples=20_000, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("test")


def pytest_report_header() -> list[str]:
    """Which lbproxy is tested."""
    return [
        f"tests import {build.imported()}",
        f"scenario tests start {' '.join(build.COMMAND)}: {build.what_is_wrong() or 'compiled, as in the checkout'}",
    ]
