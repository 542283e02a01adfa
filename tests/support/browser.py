"""A real browser without a window, and the pages that it has open: Chromium, driven by playwright.

Every page notes what a person with the developer tools open would see: messages of the console, uncaught errors, and
requests to other addresses, which are not let out.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Route, expect, sync_playwright

from lbproxy.control.dashboard.pages import HEADERS, TYPES
from tests.support.servers import needed

PATIENCE_MS = 60_000  # a second of the page takes several when thirty processes want the two cores
expect.set_options(timeout=PATIENCE_MS)

# Without the sandbox where it cannot be had: for root, and in containers.
_SWITCHES = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Chromium, for as many pages as a module of tests needs. Skips the test where there is none."""
    program = needed("chromium")
    with sync_playwright() as playwright:
        # A proxy of the environment is for the world outside; what is tested is on this machine.
        env: dict[str, str | float | bool] = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
        started = playwright.chromium.launch(executable_path=program, args=_SWITCHES, env=env)
        try:
            yield started
        finally:
            started.close()


@dataclass
class Tab:
    """A page, and what went wrong on it. console: messages of any kind but debug ones."""

    page: Page
    console: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def check_clean(self, *expected: str) -> None:
        """Nothing went wrong but messages of the console with these words, and all of them came."""
        rest = [text for text in self.console if not any(words in text for words in expected)]
        assert (rest, self.errors, self.elsewhere) == ([], [], [])
        assert [words for words in expected if not any(words in text for text in self.console)] == []


@contextlib.contextmanager
def tab(
    browser: Browser,
    url: str,
    *,
    width: int = 1280,
    height: int = 800,
    scheme: Literal["light", "dark"] = "light",
    files: Path | None = None,
    answers: Mapping[str, str] | None = None,
) -> Iterator[Tab]:
    """A page of its own at this address, which has to load; its storage is empty.

    files: nobody is asked for anything: these are the files of the page, with the policy that they are served with.
    answers: what other paths say then, as streams of events; all that are left say 404. Without them no script starts.
    """
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    found = Tab(page)

    def said(message: ConsoleMessage) -> None:
        if message.type != "debug":
            found.console.append(message.text)

    def failed(error: Error) -> None:
        found.errors.append(error.message)

    def asked(route: Route) -> None:
        path = "/" + route.request.url.removeprefix(url)
        if files is not None:
            name = path.removeprefix("/dashboard/")
            if answers is not None and path in answers:
                route.fulfill(body=answers[path], content_type="text/event-stream")
            elif path == "/" and answers is None:
                route.fulfill(body="<!doctype html><title>empty</title>", headers=HEADERS, content_type="text/html")
            elif (found_at := files / ("index.html" if path == "/" else name)).is_file():
                route.fulfill(path=found_at, headers={**HEADERS, "Content-Type": TYPES[found_at.suffix]})
            else:
                route.fulfill(status=404, body="{}")
        elif route.request.url.startswith(url):
            route.continue_()
        else:
            found.elsewhere.append(route.request.url)
            route.abort()

    page.on("console", said)
    page.on("pageerror", failed)
    page.route("**/*", asked)
    page.goto(url)
    try:
        yield found
    finally:
        context.close()


def complaints(page: Page) -> list[str]:
    """What axe-core finds fault with, one line for each rule, with the elements."""
    found = Axe().run(page).response["violations"]
    return [f"{rule['id']}: {[node['target'] for node in rule['nodes']]}" for rule in found]
