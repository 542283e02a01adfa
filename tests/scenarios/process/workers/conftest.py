"""A daemon with two workers for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.crew import CrewProxy, crew_config
from tests.support.origin import Origin


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


@pytest.fixture(scope="module")
def running(origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrewProxy]:
    lb = CrewProxy(crew_config(origin), tmp_path_factory.mktemp("lb"))
    try:
        yield lb.start()
        lb.stop(allow_errors=True)
    finally:
        lb.kill()


@pytest.fixture
def lb(running: CrewProxy) -> CrewProxy:
    """All of its processes serve."""
    running.wait_all_up()
    return running
