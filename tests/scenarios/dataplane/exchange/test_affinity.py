"""Real requests go where they belong: by the model in their body, and by their cookie. One daemon, one pool each."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import requests

from tests.support.daemon import LbProxy
from tests.support.origin import Origin, Peer, Script
from tests.support.servers import needed
from tests.support.waiting import wait_until

SECRET = "0123456789abcdef0123"
N = 3


class Site:
    """Servers that answer with their name; those whose name is in `held` wait until they are let go."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack, workers: int) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.origins = {f"s{n}": stack.enter_context(Origin(default=self._answers(f"s{n}"))) for n in range(N)}
        servers = [{"address": origin.address, "name": name} for name, origin in self.origins.items()]
        base = {"servers": servers, "health_check": "off", "retry": {"idempotent": True}}
        listeners = [{"name": name, "bind": "127.0.0.1:0", "pool": name} for name in ("model", "full", "sticky")]
        by_model = {"name": "consistent_hash", "key": "json:/model", "bounded_load": "off"}
        config: dict[str, object] = {
            "workers": workers,
            "listeners": listeners,
            "pools": {
                "model": {**base, "strategy": by_model},
                "full": {**base, "strategy": by_model, "max_inflight": 1},
                "sticky": {**base, "strategy": "round_robin", "sticky": {"cookie": "lb", "secret": SECRET}},
            },
        }
        self.lb = stack.enter_context(LbProxy(config, directory))

    def _answers(self, name: str) -> Script:
        def script(c: Peer) -> None:
            while True:
                request = c.read_request()
                if b"hold" in request.body:
                    c.wait(self.gate)
                body = name.encode()
                c.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

        return script

    def url(self, pool: str) -> str:
        return f"http://127.0.0.1:{self.lb.port(pool)}/"

    def set_admin(self, server: str, **values: object) -> None:
        port = self.lb.port("admin")
        path = f"http://127.0.0.1:{port}/api/v1/pools/sticky/servers/{server}"
        assert requests.patch(path, json=values, timeout=20).status_code == 200


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def site(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        site = Site(tmp_path_factory.mktemp("affinity"), stack, request.param)
        yield site
        assert {entry["status"] for entry in site.lb.access_log()} <= {200}, "nothing failed, whichever tests ran"


def body(model: str, *, prompt: str = "", **more: object) -> bytes:
    return json.dumps({"prompt": prompt, "model": model, **more}).encode()


def test_a_model_has_its_server_whatever_the_client_and_the_framing(site: Site) -> None:
    url = site.url("model")
    owners = {model: requests.post(url, data=body(model), timeout=20).text for model in "abcdefgh"}
    assert set(owners.values()) == set(site.origins)
    for model, owner in owners.items():
        pieces = (body(model, prompt="x" * 3000)[at : at + 700] for at in range(0, 3100, 700))
        assert httpx.post(url, content=pieces, timeout=20).text == owner, "chunked"
        long = body(model, tail="y" * 300_000)
        assert requests.post(url, data=long, timeout=20).text == owner


def test_curl_is_asked_for_its_body(site: Site, tmp_path: Path) -> None:
    url, file = site.url("model"), tmp_path / "body"
    for model in "abc":
        owner = requests.post(url, data=body(model), timeout=20).text
        file.write_bytes(body(model, tail="y" * 200_000))
        command = [
            needed("curl"),
            "-sS",
            "--noproxy",
            "*",
            "-H",
            "Expect: 100-continue",
            "--data-binary",
            f"@{file}",
            url,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.stdout, done.stderr) == (owner, "")


def test_no_key_is_no_error(site: Site) -> None:
    url = site.url("model")
    for data in (b"", b"no JSON", b'{"model": ', b'{"model": null}', b"x" * 200_000):
        assert requests.post(url, data=data, timeout=20).status_code == 200
    assert requests.get(url, timeout=20).status_code == 200


def test_a_full_server_s_requests_go_to_the_next_and_come_back(site: Site) -> None:
    url = site.url("full")
    owner = requests.post(url, data=body("a"), timeout=20).text
    site.gate.clear()
    answers: list[str] = []
    held = threading.Thread(
        target=lambda: answers.append(requests.post(url, data=body("a", x="hold"), timeout=60).text)
    )
    held.start()
    try:
        wait_until(lambda: site.lb.metric("server_inflight", pool="full", server=owner) == 1, "it to be there")
        spilled = {requests.post(url, data=body("a"), timeout=20).text for _ in range(4)}
        assert len(spilled) == 1 and owner not in spilled
    finally:
        site.gate.set()
        held.join()
    assert answers == [owner]
    assert requests.post(url, data=body("a"), timeout=20).text == owner
    site.lb.wait_metric("hash_picks_total", 4, pool="full", result="spilled")


def test_sessions_stay_at_their_server(site: Site) -> None:
    url = site.url("sticky")
    with requests.Session() as one, httpx.Client(timeout=20) as other:
        first = one.get(url, timeout=20)
        assert first.headers["Set-Cookie"].endswith("; Path=/; HttpOnly; SameSite=Lax")
        assert {one.get(url, timeout=20).text for _ in range(6)} == {first.text}
        assert len({other.get(url).text for _ in range(6)}) == 1


def test_curl_s_jar(site: Site, tmp_path: Path) -> None:
    jar = str(tmp_path / "jar")
    command = [needed("curl"), "-sS", "--noproxy", "*", "-b", jar, "-c", jar, site.url("sticky")]
    answers = {subprocess.run(command, capture_output=True, text=True, timeout=60).stdout for _ in range(5)}
    assert len(answers) == 1 and answers <= set(site.origins)


@pytest.mark.parametrize("cookie", ["", "x", "A" * 32, "A" * 8000])
def test_a_forged_cookie_is_replaced(site: Site, cookie: str) -> None:
    answer = requests.get(site.url("sticky"), headers={"Cookie": f"lb={cookie}"}, timeout=20)
    assert answer.status_code == 200
    assert answer.cookies["lb"] != cookie


def test_drain_keeps_who_sticks_if_it_is_said_and_maintenance_moves_them(site: Site) -> None:
    url = site.url("sticky")
    with requests.Session() as client:
        own = client.get(url, timeout=20).text
        try:
            site.set_admin(own, admin="drain", keep_sticky=True)
            assert {client.get(url, timeout=20).text for _ in range(4)} == {own}
            assert own not in {requests.get(url, timeout=20).text for _ in range(2 * N)}
            site.set_admin(own, admin="drain")
            moved = client.get(url, timeout=20)
            assert moved.text != own and "lb" in moved.cookies
            site.set_admin(own, admin="ready")
            assert {client.get(url, timeout=20).text for _ in range(4)} == {moved.text}, "and does not come back"
            site.set_admin(moved.text, admin="maint")
            assert client.get(url, timeout=20).text != moved.text
        finally:
            for name in site.origins:
                site.set_admin(name, admin="ready")
