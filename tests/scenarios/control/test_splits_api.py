"""Real requests by their body and by a split, with two workers: what the API and the command change holds for all."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import requests

from tests.support import nursery
from tests.support.daemon import LbProxy, total
from tests.support.origin import Origin, Peer, Script

POOLS = ("stable", "canary", "llama")


def named(name: str) -> Script:
    def script(c: Peer) -> None:
        while True:
            c.read_request()
            c.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name.encode()))

    return script


class Site:
    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        origins = {name: stack.enter_context(Origin(default=named(name))) for name in POOLS}
        config: dict[str, object] = {
            "workers": 2,
            "listeners": [
                {
                    "name": "web",
                    "bind": "127.0.0.1:0",
                    "routes": [
                        {"name": "llama", "match": {"json": {"/model": "llama-*"}}, "pool": "llama"},
                        {"name": "chat", "match": {"path": "/chat"}, "split": {"stable": 1, "canary": 0}},
                        {
                            "match": {"path": "/user"},
                            "split": {"by": "header:X-User", "pools": {"stable": 1, "canary": 1}},
                        },
                        {"pool": "stable"},
                    ],
                }
            ],
            "pools": {name: {"servers": [item.address], "health_check": "off"} for name, item in origins.items()},
        }
        self.lb = stack.enter_context(LbProxy(config, directory))
        self.directory = directory
        self.url = f"http://127.0.0.1:{self.lb.port('web')}"
        self.api = f"http://127.0.0.1:{self.lb.port('admin')}/api/v1"

    def asked(self, path: str, n: int = 12, **options: object) -> set[str]:
        """Who answers on connections of their own, which several workers accept."""
        return {requests.post(self.url + path, timeout=20, **options).text for _ in range(n)}  # type: ignore[arg-type]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return nursery.run(["split", *words, "--admin", f"127.0.0.1:{self.lb.port('admin')}"], self.directory)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        yield Site(tmp_path_factory.mktemp("splits"), stack)


def test_the_body_says_where_a_request_goes_whatever_the_framing_and_the_version(site: Site) -> None:
    body = b'{"messages": [{"content": "' + b"x" * 20_000 + b'"}], "model": "llama-3"}'
    other = body.replace(b"llama-3", b"gpt-4-x")
    for data, owner in ((body, "llama"), (other, "stable"), (body[:-1], "stable")):
        assert site.asked("/", 3, data=data) == {owner}
        pieces = (data[at : at + 700] for at in range(0, len(data), 700))
        assert httpx.post(site.url, content=pieces, timeout=20).text == owner
        with httpx.Client(http1=False, http2=True, timeout=20) as client:
            assert client.post(site.url, content=data).text == owner
    long = body[:-1] + b', "tail": "' + b"y" * 300_000 + b'"}'
    assert site.asked("/", 2, data=long) == {"llama"}


def test_a_share_is_changed_by_the_api_for_all_workers(site: Site) -> None:
    assert site.asked("/chat") == {"stable"}
    answer = requests.patch(f"{site.api}/splits/web/chat", json={"shares": {"stable": 0, "canary": 1}}, timeout=20)
    assert answer.status_code == 200
    assert answer.json()["changed"] == {"stable": {"old": 1, "new": 0}, "canary": {"old": 0, "new": 1}}
    assert site.asked("/chat") == {"canary"}
    assert site.lb.metric("split_share_ratio", listener="web", route="chat", pool="canary") == 1.0
    [split] = [
        item for item in requests.get(f"{site.api}/status", timeout=20).json()["splits"] if item["name"] == "chat"
    ]
    assert split["live"]["by"] == "127.0.0.1"
    assert requests.get(f"{site.api}/splits/web/1", timeout=20).json()["split"]["name"] == "chat"
    assert len(requests.get(f"{site.api}/splits", timeout=20).json()["splits"]) == 2


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("web/chat", {"shares": {"stable": 0, "canary": 0}}, 422, "no pool would have one"),
        ("web/chat", {"share": {"stable": 0}}, 422, "share: unknown key"),
        ("web/chat", {"shares": {"other": 1}}, 422, "the split has no pool other"),
        ("web/chta", {"shares": {"canary": 1}}, 404, "did you mean web/chat?"),
    ],
)
def test_what_can_not_be_is_refused(site: Site, path: str, body: object, status: int, told: str) -> None:
    answer = requests.patch(f"{site.api}/splits/{path}", json=body, timeout=20)
    assert answer.status_code == status
    assert told in answer.json()["detail"]


def test_a_share_is_changed_by_the_command_and_given_back(site: Site) -> None:
    done = site.command("web/chat", "stable=3", "canary=1")
    assert (done.returncode, done.stdout.strip()) == (
        0,
        "web/chat (by chance): stable 3 (75 %), canary 1 (25 %); set by 127.0.0.1",
    )
    done = site.command("chat", "file")
    assert (done.returncode, done.stdout.strip()) == (0, "web/chat (by chance): stable 1 (100 %), canary 0 (0 %)")
    assert site.asked("/chat") == {"stable"}
    shown = site.command()
    assert shown.stdout.splitlines()[1] == "web/2 (by header:X-User): stable 1 (50 %), canary 1 (50 %)"
    refused = site.command("canary=1")
    assert refused.returncode == 2 and "say which, web/chat, web/2" in refused.stderr


def test_a_key_has_its_pool_in_every_worker(site: Site) -> None:
    owners = [site.asked("/user", 4, headers={"X-User": f"u{number}"}) for number in range(8)]
    assert all(len(owner) == 1 for owner in owners)
    assert set.union(*owners) == {"stable", "canary"}


def test_a_route_with_a_name_is_counted_over_all_workers(site: Site) -> None:
    before = total(site.lb.metrics("route_requests_total"), "route_requests_total", route="llama", code="2xx")
    site.asked("/", 10, data=b'{"model": "llama-3"}')
    site.lb.wait_metric("route_requests_total", before + 10, route="llama", code="2xx")
    labels = {item for name, item in site.lb.metrics("route_requests_total") if name == "lbproxy_route_requests_total"}
    assert {dict(item)["route"] for item in labels} == {"llama", "chat"}


def test_explain_says_the_same(site: Site) -> None:
    asked = {"method": "POST", "path": "/", "body": '{"model": "llama-3"}'}
    told = requests.get(f"{site.api}/explain", params=asked, timeout=20).json()
    assert (told["route"], told["pool"]["name"], told["split"]) == (0, "llama", None)
    told = requests.get(f"{site.api}/explain", params={**asked, "path": "/chat", "body": "{}"}, timeout=20).json()
    assert told["routes"][0]["why"] == "the body has no /model to go by"
    assert (told["route"], told["split"]["by"]) == (1, None)
    assert [item["pool"] for item in told["split"]["pools"]] == ["stable", "canary"]
