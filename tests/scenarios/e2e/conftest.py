"""Servers that several of the end-to-end tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.servers import DEMO_APP, Gunicorn, gunicorns


@pytest.fixture(scope="session")
def demo_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Gunicorn]]:
    """Three gunicorns with the bundled demo application. Nobody may kill them."""
    with gunicorns(tmp_path_factory.mktemp("demo"), 3, DEMO_APP) as servers:
        yield servers


@pytest.fixture(scope="session")
def echo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    """A gunicorn that answers with what it got. Nobody may kill it."""
    with gunicorns(tmp_path_factory.mktemp("echo"), 1) as (server,):
        yield server
