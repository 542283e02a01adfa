"""The pytest plug-in: every test may ask for `lbproxy` and `faulty_server` (docs/testing.md).

pytest loads it wherever lbproxy is installed, so what it needs is imported by the fixtures.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lbproxy.testing.faulty_server import Answer, FaultyServer
    from lbproxy.testing.proxy import Proxy

LOG_LINES = 100
_started = pytest.StashKey[list["Proxy"]]()


@pytest.fixture
def lbproxy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Proxy]]:
    """Call it with a config (a dict, YAML, or the path of a file) to start an lbproxy; see lbproxy.testing.Proxy.

    It is ready when the call returns, and stopped when the test is over. Its log is shown if the test has failed.
    """
    from lbproxy.testing.proxy import Proxy

    started = request.node.stash.setdefault(_started, [])
    with ExitStack() as stack:

        def start(config: Any, **options: Any) -> Proxy:
            __tracebackhide__ = True
            proxy = Proxy(config, **options, directory=tmp_path / f"lbproxy{len(started)}")
            started.append(proxy)
            return stack.enter_context(proxy)

        yield start


@pytest.fixture
def faulty_server() -> Iterator[Callable[..., FaultyServer]]:
    """Call it to start a server that gives these answers, one each, and then good ones; see FaultyServer."""
    from lbproxy.testing.faulty_server import FaultyServer

    with ExitStack() as stack:

        def start(*script: Answer, **options: Any) -> FaultyServer:
            return stack.enter_context(FaultyServer(*script, **options))

        yield start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed shows what its lbproxy said."""
    report = yield
    if report.failed:
        proxies: list[Proxy] = item.stash.setdefault(_started, [])
        for number, proxy in enumerate(proxies, start=1):
            lines = proxy.log.splitlines()[-LOG_LINES:]
            report.sections.append((f"log of lbproxy {number}", "\n".join(lines)))
    return report
