"""What the dashboard of a hundred servers costs: octets of the page, time until something is seen, CPU of the daemon.

Octets are the same on any machine. The others hold generously on a busy one; with LBPROXY_STRICT=1 in the environment
(`make soak` has it) they are those that docs/dashboard.md names, which a machine with nothing else to do keeps.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from lbproxy.control.dashboard.pages import DashboardFiles
from tests.support.browser import browser
from tests.support.daemon import LbProxy
from tests.support.open_loop import Servers
from tests.support.ports import consecutive_ports

pytestmark = pytest.mark.timeout(240)  # a browser wants more than a core of its own

IS_STRICT = os.environ.get("LBPROXY_STRICT") == "1"
N_SERVERS = RATE = 100
PAGE_BYTES = 100 * 1024
WATCHED_S = 10.0 if IS_STRICT else 3.0
CORE_SHARE = 0.01 if IS_STRICT else 0.2
FIRST_PAINT_MS = 300 if IS_STRICT else 30_000
BROWSER_CONNECTIONS = 6  # that it may still keep when its page is closed

TIMES = """
() => ({
  paint: performance.getEntriesByType("paint").map((entry) => [entry.name, entry.startTime]),
  files: [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .map((entry) => [new URL(entry.name).pathname, entry.encodedBodySize, entry.transferSize]),
})
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def lb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LbProxy]:
    """All of its servers have something to do, so that there is always something to tell of each."""
    with Servers(N_SERVERS, 0.0) as servers:
        settings = {
            "admin": {"bind": f"127.0.0.1:{consecutive_ports(1)}"},
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {"p": {"servers": servers.addresses, "health_check": "off", "strategy": "round_robin"}},
        }
        with LbProxy(settings, tmp_path_factory.mktemp("lb")) as lb:
            with servers.load(lb.port("in"), RATE):
                yield lb
            lb.baseline_fds += BROWSER_CONNECTIONS


def opened(chromium: Browser, lb: LbProxy) -> Page:
    """A page of its own, with nothing kept from another, that shows the servers."""
    page = chromium.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.goto(f"http://127.0.0.1:{lb.port('admin')}/")
    expect(page.locator("#count")).to_have_text(f"{N_SERVERS} servers")
    return page


def test_the_page_is_small_and_soon_there(chromium: Browser, lb: LbProxy) -> None:
    opened(chromium, lb).context.close()  # the browser's own first time
    paints = []
    for _ in range(5 if IS_STRICT else 2):
        page = opened(chromium, lb)
        page.wait_for_function("performance.getEntriesByType('paint').length > 0")
        found: dict[str, Any] = page.evaluate(TIMES)
        page.context.close()
        paints.append(min(ms for _, ms in found["paint"]))
    files = [(path, size, sent) for path, size, sent in found["files"] if not path.startswith("/api/")]
    assert {path for path, _, _ in files} == set(DashboardFiles().paths)
    assert all(size for _, size, _ in files), files
    total, sent = sum(size for _, size, _ in files), sum(sent for _, _, sent in files)
    paint = sorted(paints)[len(paints) // 2]
    print(f"{len(files)} files, {total} octets, {sent} with heads; first paint after {paint:.0f} ms: {paints}")
    assert sent < PAGE_BYTES
    assert paint < FIRST_PAINT_MS


def test_a_viewer_costs_little_of_a_core(chromium: Browser, lb: LbProxy) -> None:
    def used() -> float:
        """Of a core, while some seconds pass."""
        before, began = lb.cpu_s(), time.monotonic()
        time.sleep(WATCHED_S)
        return (lb.cpu_s() - before) / (time.monotonic() - began)

    alone = used()
    page = opened(chromium, lb)
    watched = used()
    expect(page.locator("#link-text")).not_to_have_text("no answer")
    page.context.close()
    print(f"{100 * alone:.2f} % of a core alone, {100 * watched:.2f} % with a viewer")
    assert watched - alone < CORE_SHARE
