"""Rules about paths and methods in front of real servers: what a rule closes, no spelling opens.

Each spelling of a path goes to each server directly, to know what it serves for it, and through lbproxy, where a route
answers 403 for `/admin`. Whatever lbproxy lets pass must not have been answered by the protected view.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.guarded_app import SERVERS
from tests.support.waiting import wait_until
from tests.support.wire import Response

ROOT = Path(__file__).resolve().parents[3]
START_S = 60.0
# Spellings of /admin/secret and /admin, and their like. Some are nobody's; which ones a server takes for /admin is seen
# when it is asked directly.
SPELLINGS = """
/admin /admin/ /admin/secret //admin /admin//secret //admin/secret ///admin/secret ////admin /.//admin/secret /./admin
/./admin/secret /admin/./secret /admin/. /x/../admin/secret /x/..//admin /../admin /../../admin/secret
/admin/x/../secret /admin/.. /x/%2e%2e/admin /x/%2E%2e/admin/secret /%2e/admin /%2e%2e/admin /x/.%2e/admin /..;/admin
/x/..;/admin /x/..;a=b/admin/secret /;/admin /;x/admin /;x/admin/secret /admin;x /admin;/secret /admin;x/secret
/admin;a=b;c=d /x;/../admin /admin;%2f..%2f /%3b/admin /admin%3bx /%61dmin /%61%64%6d%69%6e /adm%69n/secret
/%61dmin%2fsecret \\admin /\\admin /\\\\admin /x\\..\\admin /%5cadmin /x%5c..%5cadmin /x/..%5cadmin /%2fadmin
/%2f%2fadmin //%2fadmin/secret /admin%2fsecret /admin%2F /x%2f..%2fadmin /x/..%2fadmin /..%2fadmin /.%2fadmin
/x%2f%2e%2e%2fadmin /%252fadmin /admin%252fsecret /x/%252e%252e/admin /%2561dmin /%25%36%31dmin /admin%00
/admin%00/secret /x%00/../admin /admin%20 /admin%09 /admin%0a /admin%0d%0a /%20admin /admin/%20 /admin. /admin..
/admin... /Admin /ADMIN/secret /aDmin%2fsecret /admin%3fx /admin%23x /admin? /admin?x /admin?/../x /admin/secret?a=//b
/admin#x /%c0%afadmin /x/%c0%ae%c0%ae/admin /x%e0%80%af../admin /%c1%9cadmin /%u0061dmin /%uff0fadmin /%ef%bc%8fadmin
/admi%EF%BD%8E /admin%c2%a0 /admin/secret/ /admin/secret// /admin/%2e /admin/%2e/secret /admin/%2e%2e/admin /.admin
/..admin /.../admin /% /%2 /%zz/admin /%%61dmin /admin% http://h/admin http://h//admin http://h/%61dmin/secret
http://h/x/../admin http://h?/admin http://h//x/..;/admin * /* /admin* /admin[ /[admin] /{admin} /admin| /admin"
/admin~ /~admin /admin:80 /admin@x /admin! /admin%21
""".split()  # noqa: SIM905
# Paths that are refused where a rule looks, whatever the server.
REFUSED = (
    "/x/../admin",
    "/./admin",
    "/x/..;/admin",
    "/admin;x",
    "/;x/admin",
    "/%2fadmin",
    "/x%5c..%5cadmin",
    "/admin%00",
)
# The first of each pair is what a client sends, the second what the server must see, and be served by the open view.
PASSED = (
    ("/open//x", "/open/x"),
    ("/%6fpen/%7Ex", "/open/~x"),
    ("/open/x;v=1", "/open/x;v=1"),
    ("/open/a%20b%C3%A9", "/open/a b\u00e9"),
    ("/open/100%25", "/open/100%"),
    ("/open/.well-known/x..y", "/open/.well-known/x..y"),
    ("/administrator", "/administrator"),
)
NEEDS_LOOK = {"rules": {}, "slashes": {"encoded_slashes": "pass"}, "strict": {"path_rules": "strict"}}


@dataclass
class Stage:
    lb: LbProxy
    ports: dict[str, int]

    def direct(self, server: str, target: str) -> str:
        return ask(self.ports[server], target)[0]

    def through(self, server: str, kind: str, target: str, method: str = "GET") -> tuple[str, str]:
        return ask(self.lb.port(f"{server}-{kind}"), target, method)


def ask(port: int, target: str, method: str = "GET") -> tuple[str, str]:
    """What answered: `protected`, `open` or a status; and the path as the application saw it."""
    with Client(port, timeout_s=START_S) as client:
        client.send(f"{method} {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        try:
            answer: Response = client.response(is_head=method == "HEAD")
        except Exception as error:  # a server that cuts the connection has served nothing
            return type(error).__name__, ""
    if answer.status == 200:
        return answer.body.decode(), answer.get("x-seen") or ""
    return str(answer.status), ""


def _listener(server: str, kind: str) -> dict[str, object]:
    closed = {"match": {"path_prefix": "/admin"}, "respond": {"status": 403}}
    return {
        "name": f"{server}-{kind}",
        "bind": "127.0.0.1:0",
        "routes": [closed, {"pool": server}],
        **NEEDS_LOOK[kind],
    }


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("guarded")
    processes = []
    ports = {}
    try:
        for server in SERVERS:
            with socket.socket() as sock, (folder / f"{server}.log").open("wb") as log:
                sock.bind(("127.0.0.1", 0))
                sock.listen(128)
                sock.set_inheritable(True)
                ports[server] = sock.getsockname()[1]
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "tests.support.guarded_app", server, str(sock.fileno())],
                        cwd=ROOT,
                        env={**os.environ, "PYTHONPATH": str(ROOT)},
                        pass_fds=[sock.fileno()],
                        stdout=log,
                        stderr=log,
                    )
                )
        tenant = {"rewrite": {"strip_prefix": "/x", "path_prefix": "/tenant"}}
        methods: list[dict[str, object]] = [
            {"match": {"methods": ["DELETE", "PURGE"]}, "respond": {"status": 403}},
            {"match": {"path": "/only-get", "methods": ["GET"]}, "pool": "werkzeug"},
            {"match": {"path": "/only-get"}, "respond": {"status": 410}},
            {"pool": "werkzeug"},
        ]
        config: dict[str, object] = {
            "listeners": [
                *(_listener(server, kind) for server in SERVERS for kind in NEEDS_LOOK),
                *(
                    {"name": f"{server}-tenant", "bind": "127.0.0.1:0", "routes": [{"pool": server, **tenant}]}
                    for server in SERVERS
                ),
                {"name": "werkzeug-methods", "bind": "127.0.0.1:0", "routes": methods},
                {"name": "werkzeug-limited", "bind": "127.0.0.1:0", "pool": "werkzeug", "methods": ["GET", "PURGE"]},
                {"name": "werkzeug-plain", "bind": "127.0.0.1:0", "pool": "werkzeug"},
            ],
            "pools": {
                server: {
                    "servers": [f"127.0.0.1:{port}"],
                    "health_check": "off",
                    "retry": "off",
                    "circuit_breaker": "off",
                    "timeouts": {"connect": "60s", "response_head": "60s"},
                }
                for server, port in ports.items()
            },
        }
        with LbProxy(config, folder / "lb") as lb:
            yield Stage(lb, ports)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(60)


# What `strict` lets pass the others pass as it is.
@pytest.mark.parametrize(
    ("server", "kind"),
    [(server, kind) for server in SERVERS for kind in ("rules", "slashes")] + [("werkzeug", "strict")],
)
def test_no_spelling_reaches_a_view_that_a_rule_closes(stage: Stage, server: str, kind: str) -> None:
    opened = {}
    for target in SPELLINGS:
        kind_of_answer, seen = stage.through(server, kind, target)
        if kind_of_answer == "protected":
            opened[target] = seen
    assert not opened


@pytest.mark.parametrize("server", SERVERS)
def test_the_server_alone_is_opened_by_many_of_them(stage: Stage, server: str) -> None:
    """That the test above can fail: these are what a rule that compared texts would let pass."""
    served = {target for target in SPELLINGS if stage.direct(server, target) == "protected"}
    assert served >= {"/admin/secret", "/%61dmin", "/adm%69n/secret", "/%61dmin%2fsecret"}
    print(server, *sorted(served))


@pytest.mark.parametrize("server", SERVERS)
def test_no_spelling_leaves_the_prefix_of_a_rewrite(stage: Stage, server: str) -> None:
    opened = {}
    for target in SPELLINGS:
        for spelling in (target, "/x" + target):
            kind_of_answer, seen = stage.through(server, "tenant", spelling)
            if kind_of_answer == "protected" or (kind_of_answer == "open" and not seen.startswith("/tenant")):
                opened[spelling] = seen
    # `*` is no path, and is for OPTIONS only; a server that gets nothing has seen nothing
    assert not opened


@pytest.mark.parametrize("target", REFUSED)
def test_what_servers_read_in_several_ways_is_refused(stage: Stage, target: str) -> None:
    assert stage.through("werkzeug", "rules", target)[0] == "400"

    def ends() -> list[object]:
        return [line["end"] for line in stage.lb.access_log() if line["target"] == target and line["status"] == 400]

    wait_until(lambda: ends(), f"the log line of {target}")
    assert set(ends()) == {"bad_path"}


@pytest.mark.parametrize(("target", "seen"), PASSED)
@pytest.mark.parametrize("server", SERVERS)
def test_other_paths_pass(stage: Stage, server: str, target: str, seen: str) -> None:
    assert stage.through(server, "rules", target) == ("open", quote(seen))


def test_encoded_slashes_pass_where_they_are_allowed_and_make_no_difference(stage: Stage) -> None:
    assert stage.through("werkzeug", "slashes", "/open/a%2Fb%5cc") == ("open", quote("/open/a/b\\c"))
    assert stage.through("werkzeug", "rules", "/open/a%2Fb")[0] == "400"
    assert stage.through("werkzeug", "slashes", "/open%2f..%2fx")[0] == "400"


def test_strict_refuses_what_would_be_changed(stage: Stage) -> None:
    for target, _ in PASSED[:2]:
        assert stage.through("werkzeug", "strict", target)[0] == "400"
    assert stage.through("werkzeug", "strict", "/open/a%20b;c")[0] == "open"


def test_where_no_rule_looks_the_path_is_passed_on_as_it_is(stage: Stage) -> None:
    assert stage.through("werkzeug", "plain", "/open/a%2Fb") == ("open", quote("/open/a/b"))


def test_rules_about_methods_cannot_be_walked_around_either(stage: Stage) -> None:
    """Werkzeug takes `purge` for PURGE; `delete` is no method, because a server may take it for DELETE."""
    assert ask(stage.ports["werkzeug"], "/x", "purge")[0] == "open"
    for method, expected in (
        ("DELETE", "403"), ("PURGE", "403"), ("purge", "403"), ("Purge", "403"), ("delete", "501"), ("get", "501"),
        ("head", "501"), ("connect", "501"), ("TRACE", "405"), ("GET", "open"), ("REPORT", "405"),
    ):  # fmt: skip
        assert stage.through("werkzeug", "methods", "/x", method)[0] == expected, method


def test_get_stands_for_head(stage: Stage) -> None:
    for method, expected in (("GET", "open"), ("HEAD", ""), ("POST", "410")):
        assert stage.through("werkzeug", "methods", "/only-get", method)[0] == expected, method


def test_a_listener_may_be_limited_to_methods(stage: Stage) -> None:
    for method, expected in (
        ("GET", "open"), ("HEAD", ""), ("PURGE", "open"), ("POST", "405"), ("REPORT", "405"), ("BREW", "501"),
    ):  # fmt: skip
        assert stage.through("werkzeug", "limited", "/x", method)[0] == expected, method
    with Client(stage.lb.port("werkzeug-limited")) as client:
        assert client.ask(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").get("allow") == "GET, PURGE, HEAD"
