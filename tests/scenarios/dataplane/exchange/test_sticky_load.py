"""Sessions under load: a drain keeps them, maintenance moves them, none fails, and cookies that are none harm nobody.

LBPROXY_FLEET_S=60 in the environment is what `make soak` does: for so long, with four times the sessions.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.request import Request as AdminRequest
from urllib.request import urlopen

import pytest

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin, Peer, Script
from tests.support.rig import get
from tests.support.waiting import wait_until

T = TypeVar("T")
FULL_S = float(os.environ.get("LBPROXY_FLEET_S", "0"))
N_SESSIONS = 40 if FULL_S else 10
N_SERVERS = 4
SECRET = "0123456789abcdef0123"
HARMLESS = (
    "lb=",
    "lb=x",
    "lb=" + "A" * 32,
    "lb=" + "A" * 4000,
    "lb=%00%0d%0a",
    "lb=" + "/" * 32,
    "; ".join(f"lb={n:032d}" for n in range(60)),
    "lb",
    '=;;;lb="',
)


def names(name: str) -> Script:
    def script(c: Peer) -> None:
        while True:
            c.read_request()
            body = name.encode()
            c.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    return script


class Site:
    """Four servers that answer with their name, and two pools of them whose cookies are called alike."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack, workers: int) -> None:
        servers = []
        for number in range(N_SERVERS):
            origin = stack.enter_context(Origin(default=names(f"s{number}")))
            servers.append({"address": origin.address, "name": f"s{number}"})
        base: dict[str, object] = {"servers": servers, "health_check": "off"}
        sticky: dict[str, object] = {"cookie": "lb", "secret": SECRET, "max_age": "1h"}
        config: dict[str, object] = {
            "workers": workers,
            "access_log": "off",
            "listeners": [
                {"name": "in", "bind": "127.0.0.1:0", "pool": "p"},
                {"name": "other", "bind": "127.0.0.1:0", "pool": "q"},
                {"name": "foreign", "bind": "127.0.0.1:0", "pool": "r"},
            ],
            "pools": {
                "p": {**base, "sticky": sticky},
                "q": {**base, "sticky": sticky},
                "r": {**base, "sticky": {**sticky, "secret": "f" * 20}},
            },
        }
        self.lb = stack.enter_context(LbProxy(config, folder))

    def set_admin(self, server: str, **values: object) -> None:
        url = f"http://127.0.0.1:{self.lb.port('admin')}/api/v1/pools/p/servers/{server}"
        request = AdminRequest(url, json.dumps(values).encode(), {"Content-Type": "application/json"}, method="PATCH")
        with urlopen(request, timeout=60) as answer:
            assert answer.status == 200

    def cookie(self, listener: str) -> str:
        with Client(self.lb.port(listener), timeout_s=60) as client:
            return (client.ask(get("/")).get("set-cookie") or "").partition(";")[0]


class Session:
    """A client with its cookie. at: whose answer it got last; n: answers so far; moves: how often it was another's."""

    def __init__(self) -> None:
        self.at = self.cookie = ""
        self.n = self.moves = 0

    def ask(self, client: Client) -> None:
        answer = client.ask(get("/", f"Cookie: {self.cookie}") if self.cookie else get("/"))
        assert answer.status == 200, answer
        if made := answer.get("set-cookie"):
            self.cookie = made.partition(";")[0]
        name = answer.body.decode()
        self.moves += bool(self.at) and name != self.at
        self.at = name
        self.n += 1


class Sessions:
    """All of them at it, on connections of their own. wrong: what did not go well."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.all = [Session() for _ in range(N_SESSIONS)]
        self.strangers = 0
        self.wrong: list[BaseException] = []
        self._stop = threading.Event()

    @contextlib.contextmanager
    def running(self, foreign: list[str]) -> Iterator[None]:
        threads = [threading.Thread(target=self._guarded, args=(self._run, session)) for session in self.all]
        threads.append(threading.Thread(target=self._guarded, args=(self._annoy, foreign)))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        assert not self.wrong, self.wrong[:3]

    def _guarded(self, work: Callable[[T], None], argument: T) -> None:
        try:
            work(argument)
        except BaseException as error:  # shown at the end
            self.wrong.append(error)

    def _run(self, session: Session) -> None:
        with Client(self._site.lb.port("in"), timeout_s=60) as client:
            while not self._stop.wait(0.02):
                session.ask(client)

    def _annoy(self, foreign: list[str]) -> None:
        """Cookies that are forged, stale, or of another pool or secret: as good as none, and replaced."""
        cookies = [*HARMLESS, *foreign]
        rng = random.Random(1)
        with Client(self._site.lb.port("in"), timeout_s=60) as client:
            while not self._stop.wait(0.01):
                cookie = rng.choice(cookies)
                answer = client.ask(get("/", f"Cookie: {cookie}"))
                assert answer.status == 200 and answer.get("set-cookie"), (cookie[:40], answer)
                self.strangers += 1

    def wait_round(self) -> None:
        """Everybody has asked twice more, so once after what was done before."""
        before = [session.n for session in self.all]
        wait_until(lambda: self.wrong or all(s.n >= n + 2 for s, n in zip(self.all, before, strict=True)), "all to ask")
        assert not self.wrong, self.wrong[:3]

    def of(self, server: str) -> list[Session]:
        return [session for session in self.all if session.at == server]


@pytest.mark.slow
@pytest.mark.timeout(0 if FULL_S else 180)
@pytest.mark.parametrize("workers", [1, 2])
def test_sessions_stay_move_when_they_must_and_never_fail(tmp_path: Path, workers: int) -> None:
    with contextlib.ExitStack() as stack:
        site = Site(tmp_path, stack, workers)
        sessions = Sessions(site)
        foreign = [site.cookie("other"), site.cookie("foreign")]
        assert all(cookie.startswith("lb=") for cookie in foreign)
        until = time.monotonic() + FULL_S
        with sessions.running(foreign):
            sessions.wait_round()
            is_over = False
            while not is_over:
                for number in range(N_SERVERS):
                    check_server(site, sessions, f"s{number}")
                    if time.monotonic() >= until and number:
                        break
                is_over = time.monotonic() >= until
            wait_until(lambda: sessions.strangers > 3 * len(HARMLESS), "cookies that are none to be tried")
        assert {str(server["name"]): server["errors"] for server in site.lb.server_status("p")} == {
            f"s{number}": 0 for number in range(N_SERVERS)
        }


def check_server(site: Site, sessions: Sessions, server: str) -> None:
    """Drained for new ones, drained, in maintenance, and back: by turns, while all ask."""
    own = sessions.of(server)
    others = [session for session in sessions.all if session not in own]
    moves = [session.moves for session in sessions.all]
    site.set_admin(server, admin="drain", keep_sticky=True)
    sessions.wait_round()
    assert [session.moves for session in sessions.all] == moves, "a drain with keep_sticky moves nobody"
    site.set_admin(server, admin="maint")
    sessions.wait_round()
    assert sessions.of(server) == [] and all(session.moves for session in own)
    kept = [session.moves for session in others]
    site.set_admin(server, admin="ready")
    sessions.wait_round()
    assert sessions.of(server) == [], "who has moved stays where it is"
    assert [session.moves for session in others] == kept, "nobody else has moved"
