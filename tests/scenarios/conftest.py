"""The shared daemon of the fault scenarios, and the invariants after each of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import build, daemon, doubled
from tests.support.rig import Rig

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def shared_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("rig"))
    try:
        rig.start()
        yield rig
    finally:
        rig.close()


@pytest.fixture
def rig(shared_rig: Rig) -> Iterator[Rig]:
    """The daemon and its servers, as new; afterwards nothing may be left in flight, open or in the error log."""
    shared_rig.reset()
    yield shared_rig
    try:
        shared_rig.check()
    except BaseException:
        shared_rig.lb.kill()  # the next scenario gets a new daemon instead of this one's leftovers
        raise


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Some tests run with two workers as well."""
    path = Path(metafunc.module.__file__ or "").relative_to(ROOT)
    if doubled.runs_twice(path, metafunc.function.__name__):
        metafunc.parametrize("n_workers", doubled.N_WORKERS, ids=doubled.NAMES, indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def n_workers(request: pytest.FixtureRequest) -> Iterator[int]:
    """How many workers daemons have whose config does not say it."""
    daemon.n_workers = getattr(request, "param", 1)
    yield daemon.n_workers
    daemon.n_workers = 1


@pytest.fixture(scope="session", autouse=True)
def _as_users_have_it() -> None:
    """On a build server, scenario tests must be about what users get."""
    if os.environ.get("CI") == "true":
        assert not build.what_is_wrong()
