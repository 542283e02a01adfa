"""The controller of two workers: reloads, all of it in all of them or nothing, and what outlives it."""

from __future__ import annotations

import copy
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.process.test_reload import Reloads, get
from tests.support.client import Client
from tests.support.crew import GET, CrewProxy, crew_config
from tests.support.origin import Origin
from tests.support.waiting import wait_until

TRIES = 24  # connections, which the kernel spreads over two workers: that one of them gets none is as good as excluded


@pytest.fixture
def reloads(lb: CrewProxy, origin: Origin) -> Iterator[Reloads]:
    """Afterwards the first config is in force."""
    made = Reloads(lb)
    first = copy.deepcopy(made.config)
    yield made
    made.config = first
    made.reload()


def answers(port: int) -> set[tuple[int, bytes]]:
    return {get(port) for _ in range(TRIES)}


def with_fixed_answer(reloads: Reloads, text: str) -> None:
    reloads.config["listeners"].append(
        {"name": "fixed", "bind": "127.0.0.1:0", "routes": [{"respond": {"status": 200, "body": text}}]}
    )


def test_a_new_listener_accepts_in_all_workers_and_what_is_connected_goes_on(reloads: Reloads) -> None:
    with Client(reloads.lb.port("in")) as client:
        assert client.ask(GET).status == 200
        with_fixed_answer(reloads, "hello")
        reloads.reload()
        port = reloads.port("fixed")
        assert answers(port) == {(200, b"hello")}
        assert client.ask(GET).status == 200
        reloads.config["listeners"].pop()
        reloads.reload()
        with pytest.raises(ConnectionRefusedError):
            Client(port)
        assert client.ask(GET).status == 200


def test_a_changed_route_holds_in_all_workers_at_once(reloads: Reloads) -> None:
    with_fixed_answer(reloads, "one")
    reloads.reload()
    port = reloads.port("fixed")
    reloads.config["listeners"][-1]["routes"][0]["respond"]["body"] = "two"
    reloads.reload()
    assert answers(port) == {(200, b"two")}


def test_a_reload_that_one_process_cannot_do_changes_nothing(reloads: Reloads) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with_fixed_answer(reloads, "never")
        reloads.config["listeners"].append(
            {"name": "taken", "bind": f"127.0.0.1:{taken.getsockname()[1]}", "pool": "p"}
        )
        status, told = reloads.ask()
        assert status == 422
        assert "something else listens there" in str(told["problems"])
    assert [item["name"] for item in reloads.lb.status()["listeners"]] == ["in"]  # type: ignore[attr-defined]
    assert {code for code, _ in answers(reloads.lb.port("in"))} == {200}
    del reloads.config["listeners"][1:]


def test_who_is_restarted_begins_with_the_last_config(reloads: Reloads, lb: CrewProxy) -> None:
    with_fixed_answer(reloads, "kept")
    reloads.reload()
    port = reloads.port("fixed")
    for name in ("1", "2", "c"):
        pid = lb.kill_member(name)
        lb.wait_replaced(name, pid)
        assert answers(port) == {(200, b"kept")}
    assert reloads.port("fixed") == port


def test_a_worker_that_hangs_during_a_reload_is_replaced(reloads: Reloads, lb: CrewProxy) -> None:
    pid = lb.kill_member("2", signal.SIGSTOP)
    with_fixed_answer(reloads, "after")
    reloads.reload()  # it is dead before it could have answered
    lb.wait_replaced("2", pid)
    wait_until(lambda: answers(reloads.port("fixed")) == {(200, b"after")}, "both to answer")


def test_a_unix_socket_is_for_all_workers_and_its_file_goes_at_the_end(origin: Origin, tmp_path: Path) -> None:
    path = tmp_path / "in.sock"
    config = crew_config(origin)
    config["listeners"][0]["bind"] = f"unix:{path}"
    lb = CrewProxy(config, tmp_path / "lb").start()
    try:
        for _ in range(TRIES):
            with Client(str(path)) as client:
                assert client.ask(GET).status == 200
        pid = lb.kill_member("1")
        lb.wait_replaced("1", pid)
        assert path.exists()
        with Client(str(path)) as client:
            assert client.ask(GET).status == 200
    finally:
        code = lb.stopped_by(signal.SIGTERM)
    assert code == 0
    assert not path.exists()


def test_a_killed_controller_has_a_successor_that_knows_what_it_knew(lb: CrewProxy, origin: Origin) -> None:
    path = f"/api/v1/pools/p/servers/{origin.address}"
    assert lb.ask_admin("PATCH", path, b'{"weight": 7}')[0] == 200
    try:
        with Client(lb.port("in")) as client:
            assert client.ask(GET).status == 200
            pid = lb.kill_member("c")
            assert client.ask(GET).status == 200
            lb.wait_replaced("c", pid)
            assert client.ask(GET).status == 200
        wait_until(lambda: lb.admin_get("/readyz")[0] == 200, "the successor to be ready")
        [server] = lb.server_status()
        assert server["weight"] == 7
        assert server["sources"]["weight"]["source"] == "live", "or a restart and an upgrade would not know of it"  # type: ignore[index]
        assert server["sources"]["weight"]["given"] == 1  # type: ignore[index]
    finally:
        lb.ask_admin("PATCH", path, b'{"weight": null}')


def test_a_request_is_explained_whichever_worker_had_it(lb: CrewProxy) -> None:
    for number in range(TRIES):
        with Client(lb.port("in")) as client:
            assert client.ask(b"GET /asked/%d HTTP/1.1\r\nHost: h\r\n\r\n" % number).status == 200
    for number in range(TRIES):
        target = f"/asked/{number}"
        code, body = lb.admin_get(f"/api/v1/explain?request_id={lb.entry(target)['request_id']}")
        assert code == 200, body
        assert [item["record"]["target"] for item in json.loads(body)["records"]] == [target]
