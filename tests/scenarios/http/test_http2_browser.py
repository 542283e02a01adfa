"""Chromium over TLS speaks HTTP/2 with lbproxy: a page, many requests of it on one connection, and WebSockets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.browser import PATIENCE_MS, browser
from tests.support.certificates import Authority
from tests.support.daemon import LbProxy
from tests.support.origin import Origin, echo
from tests.support.websocket_server import hypercorn
from tests.support.wire import Request

PAGE = b"<!doctype html><title>page</title>"
ASK = """async () => {
  const ask = async (number) => {
    const answer = await fetch("/asked/" + number, {method: "POST", body: "x".repeat(number * 1000)});
    return answer.status + " " + await answer.text();
  };
  const answers = await Promise.all([...Array(60).keys()].map(ask));
  const kinds = performance.getEntries().map((entry) => entry.nextHopProtocol).filter((kind) => kind !== undefined);
  return {answers, kinds: [...new Set(kinds.filter((kind) => kind !== ""))]};
}"""


def answer(request: Request) -> bytes:
    if request.target != "/":
        return echo(request)
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(PAGE) + PAGE


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_page_and_what_it_asks_for(tmp_path: Path) -> None:
    files = Authority(tmp_path / "ca").issue("site", "localhost", "127.0.0.1")
    with Origin(answer=answer) as origin:
        config: dict[str, object] = {
            "listeners": [{"name": "tls", "bind": "127.0.0.1:0", "pool": "p", "tls": files.tls}],
            "pools": {"p": {"servers": [origin.address], "health_check": "off"}},
        }
        with LbProxy(config, tmp_path / "lb") as lb:
            with browser() as started:
                context = started.new_context(ignore_https_errors=True)
                page = context.new_page()
                page.set_default_timeout(PATIENCE_MS)
                page.goto(f"https://127.0.0.1:{lb.port('tls')}/")
                found = page.evaluate(ASK)
                context.close()
            assert found["kinds"] == ["h2"]
            assert found["answers"] == [f"200 POST /asked/{n} {n * 1000}\n" for n in range(60)]
            assert {entry["protocol"] for entry in lb.access_log()} == {"HTTP/2"}
            # More would be asked on connections of their own if each had only one request at a time.
            assert lb.metric("client_connections_total", listener="tls") <= 3


TALK = """async (path) => {
  const socket = new WebSocket("wss://" + location.host + path, ["chat"]);
  const next = () => new Promise((found, failed) => {
    socket.onmessage = (event) => found(event.data);
    socket.onclose = (event) => failed(new Error("closed with " + event.code));
  });
  const heard = [await next(), socket.protocol];
  for (const text of ["hello", "x".repeat(200000)]) {
    socket.send(text);
    heard.push((await next()) === text);
  }
  const closed = new Promise((found) => { socket.onclose = (event) => found(event.code); });
  socket.send("bye");
  heard.push(await closed);
  return heard;
}"""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_page_opens_websockets_as_streams(tmp_path: Path) -> None:
    """On the connection that its page came on, to servers of either version (RFC 8441)."""
    files = Authority(tmp_path / "ca").issue("site", "localhost", "127.0.0.1")
    with hypercorn(tmp_path) as (_, port):
        server = {"servers": [f"127.0.0.1:{port}"], "health_check": "off"}
        routes = [{"match": {"path_prefix": "/new"}, "pool": "new"}, {"match": {"path_prefix": "/"}, "pool": "old"}]
        config: dict[str, object] = {
            "listeners": [{"name": "tls", "bind": "127.0.0.1:0", "routes": routes, "tls": files.tls}],
            "pools": {"old": server, "new": {**server, "protocol": "h2"}},
        }
        with LbProxy(config, tmp_path / "lb") as lb:
            with browser() as started:
                context = started.new_context(ignore_https_errors=True)
                page = context.new_page()
                page.set_default_timeout(PATIENCE_MS)
                page.goto(f"https://127.0.0.1:{lb.port('tls')}/")
                found = {path: page.evaluate(TALK, path) for path in ("/old", "/new")}
                context.close()
            assert found == {
                path: [version, "chat", True, True, 4000] for path, version in (("/old", "1.1"), ("/new", "2"))
            }
            for path in found:
                entry = lb.entry(path)
                assert (entry["protocol"], entry["status"], entry["method"]) == ("HTTP/2", 200, "GET")
            assert lb.metric("client_connections_total", listener="tls") <= 3
