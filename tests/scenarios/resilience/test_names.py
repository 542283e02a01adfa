"""Name look-ups that fail, change or hang, and a server address that points back to lbproxy."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.hooked import HookedDaemon
from tests.support.origin import Origin, Peer
from tests.support.rig import get
from tests.support.waiting import wait_until

ONE, TWO = "127.0.0.1", "127.0.0.2"


class Stage:
    """A pool of the name `model.test`, with a server on the same port of two addresses."""

    def __init__(self, directory: Path) -> None:
        self.one = Origin()
        self.two = Origin(host=TWO, port=self.one.port)
        config = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {
                "p": {
                    "servers": [f"model.test:{self.one.port}"],
                    "dns": {"interval": "200ms"},
                    "health_check": {"interval": "100ms", "rise": 1},
                    "strategy": "round_robin",
                }
            },
        }
        self.lb = HookedDaemon(config, directory)

    def set_name(self, answer: str) -> None:
        self.lb.set_names(**{"model.test": answer})

    def ask(self, target: str = "/x") -> int:
        with Client(self.lb.port("in")) as client:
            return client.ask(get(target)).status

    def servers(self) -> dict[str, str]:
        """State by IP."""
        return {str(item["name"]).rpartition("/")[2]: str(item["state"]) for item in self.lb.server_status()}

    def wait_servers(self, **states: str) -> None:
        wanted = {{"one": ONE, "two": TWO}[name]: state for name, state in states.items()}
        wait_until(lambda: self.servers() == wanted, f"the servers to be {wanted}")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path / "lb")
    made.set_name(ONE)
    try:
        with made.lb:
            yield made
            made.one.reset()
            made.two.reset()
    finally:
        made.one.close()
        made.two.close()


@pytest.mark.parametrize("answer", ["!", ""], ids=["no-such-name", "empty"])
def test_the_last_good_answer_is_kept(stage: Stage, answer: str) -> None:
    before = stage.lb.metric("dns_failures_total")
    stage.set_name(answer)
    stage.lb.wait_metric("dns_failures_total", before + 3)
    assert stage.ask() == 200 and stage.servers() == {ONE: "up"}
    warnings = [line for line in stage.lb.stderr.splitlines() if "looking up model.test failed" in line]
    assert warnings and all("the last good answer stays in use" in line for line in warnings)
    stage.set_name(f"{ONE} {TWO}")
    stage.wait_servers(one="up", two="up")


def test_a_look_up_that_hangs_costs_nothing(stage: Stage) -> None:
    stage.set_name("~")
    for _ in range(20):
        assert stage.ask() == 200
    assert stage.servers() == {ONE: "up"}
    stage.set_name(f"{ONE} {TWO}")
    stage.wait_servers(one="up", two="up")


def test_a_changed_answer(stage: Stage) -> None:
    """The new address gets requests after its first check; the old one finishes what it has and goes."""
    go = threading.Event()
    with Client(stage.lb.port("in")) as client:
        stage.one.default = partial(hold, go=go)
        client.send(get("/held"))
        wait_until(lambda: any(r.target == "/held" for r in stage.one.requests), "a request at the first server")
        stage.set_name(TWO)
        stage.wait_servers(one="drain", two="up")
        for number in range(5):
            assert stage.ask(f"/new-{number}") == 200
        assert [r.target for r in stage.two.requests if r.target != "/"] == [f"/new-{n}" for n in range(5)]
        go.set()
        assert client.response().status == 200
    stage.wait_servers(two="up")
    assert not any(r.target.startswith("/new") for r in stage.one.requests)


def hold(c: Peer, go: threading.Event) -> None:
    request = c.read_request()
    c.wait(go)
    c.send(c.origin.answer(request))
    c.serve()


def test_nothing_resolves_at_the_start(tmp_path: Path) -> None:
    made = Stage(tmp_path / "lb")
    made.set_name("!")
    try:
        with made.lb:
            assert made.ask() == 503
            made.set_name(ONE)
            wait_until(lambda: made.ask() == 200, "the name to be found")
            made.one.reset()
    finally:
        made.one.close()
        made.two.close()


def test_thirty_names_have_thirty_servers(tmp_path: Path) -> None:
    """More than the threads that look names up, some of which hang."""
    names = {f"model-{number}.test": f"127.0.1.{number + 1}" for number in range(30)}
    hanging = {f"dead-{number}.test": "~" for number in range(4)}
    config: dict[str, object] = {
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
        "pools": {"p": {"servers": [f"{name}:9" for name in [*hanging, *names]], "health_check": "off"}},
    }
    lb = HookedDaemon(config, tmp_path / "lb")
    lb.set_names(**names, **hanging)
    with lb:

        def states() -> Counter[str]:
            return Counter(str(server["state"]) for server in lb.server_status())

        wait_until(lambda: states() == {"up": 30, "unresolved": 4}, "every name that answers to have its server")
        assert lb.metric("pool_servers", state="unresolved") == 4
        lb.set_names(**names, **dict.fromkeys(hanging, "127.0.2.1"))
        wait_until(lambda: lb.metric("pool_servers", state="unresolved") == 0, "the late names to resolve")
        # The four hung names have one address, which is one server.
        assert states() == {"up": 31}


def test_a_name_that_does_not_resolve_is_seen(tmp_path: Path) -> None:
    with Origin() as origin:
        config: dict[str, object] = {
            "admin": {"bind": "127.0.0.1:0"},
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {"p": {"servers": [f"gone.test:{origin.port}", origin.address], "dns": {"interval": "1s"}}},
        }
        lb = HookedDaemon(config, tmp_path / "lb")
        lb.set_names(**{"other.test": ONE})
        with lb:
            wait_until(lambda: lb.metric("dns_failures_total") >= 3, "three look-ups to fail")
            rows = {row["name"]: row for row in lb.server_status()}
            row = rows[f"gone.test:{origin.port}"]
            assert (row["state"], row["why"]) == ("unresolved", "gone.test: scripted failure")
            assert lb.metric("pool_servers", state="unresolved") == 1
            logged = [line for line in lb.stderr.splitlines() if "looking up gone.test" in line]
            assert len(logged) == 1 and "it has no server yet" in logged[0], "news only"
            lb.set_names(**{"gone.test": TWO})
            wait_until(lambda: lb.metric("pool_servers", state="unresolved") == 0, "the name to resolve")
            lb.wait_logged("gone.test resolves again, to 1 addresses")


def test_an_address_under_two_names_stays_while_one_has_it(tmp_path: Path) -> None:
    """A blue-green switch: both names point to the server for a while, then one goes on."""
    go = threading.Event()
    with Origin() as origin:
        config: dict[str, object] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {
                "p": {
                    "servers": [f"blue.test:{origin.port}", f"green.test:{origin.port}"],
                    "dns": {"interval": "1s"},
                    "health_check": {"interval": "100ms", "rise": 1},
                }
            },
        }
        lb = HookedDaemon(config, tmp_path / "lb")
        lb.set_names(**{"blue.test": ONE, "green.test": ONE})
        with lb, Client(lb.port("in")) as client:
            origin.default = partial(hold, go=go)
            client.send(get("/held"))
            wait_until(lambda: any(r.target == "/held" for r in origin.requests), "a request at the server")
            lb.set_names(**{"blue.test": TWO, "green.test": ONE})
            wait_until(lambda: "green.test has it" in lb.stderr, "blue to lose the address")
            states = {str(item["address"]).partition(":")[0]: item["state"] for item in lb.server_status()}
            assert states[ONE] == "up"
            lb.set_names(**{"blue.test": TWO, "green.test": TWO})
            wait_until(lambda: " is drain, was up" in lb.stderr, "green to lose it too")
            go.set()
            assert client.response().status == 200


def test_a_server_that_is_lbproxy_itself(tmp_path: Path) -> None:
    """A literal address is refused when the config is read; behind another name it is found by Via."""
    own, alias = tmp_path / "own.sock", tmp_path / "alias.sock"
    alias.symlink_to(own)
    config = {
        "listeners": [
            {"name": "in", "bind": "127.0.0.1:0", "pool": "p"},
            {"name": "own", "bind": f"unix:{own}", "pool": "p"},
        ],
        "pools": {"p": {"servers": [f"unix:{alias}"], "health_check": "off", "keep_alive": "off"}},
    }
    with LbProxy(config, tmp_path / "lb") as lb, Client(lb.port("in")) as client:
        for _ in range(10):
            answer = client.ask(get("/loop"))
            assert answer.status == 508 and b"loop_detected" in answer.body
        assert lb.metric("upstream_connects_total", result="ok") <= 50
        assert lb.metric("rejected_total", reason="loop_detected") == 10
