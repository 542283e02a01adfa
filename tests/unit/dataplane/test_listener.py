"""How many clients fit, the accept gate, and the words of a failed bind. The sockets are in tests/scenarios."""

from __future__ import annotations

import errno
import os
import resource
import socket

import pytest

from lbproxy.address import parse_address
from lbproxy.dataplane.listener import (
    ADMIN_FDS,
    BASE_FDS,
    RETRY_ACCEPT_S,
    SPARE_FDS,
    bind_message,
    plan_connections,
)
from tests.support.fake_transport import FakeLb


def test_a_listener_that_waits_for_descriptors_stays_paused_while_the_gate_is_shut() -> None:
    with FakeLb() as lb:
        lb.listener.start()
        lb.listener.try_later()
        lb.gate.hold()
        lb.advance(RETRY_ACCEPT_S + 0.01)
        assert not lb.listener.may_accept
        lb.gate.reconsider()
        assert lb.listener.may_accept
        lb.listener.try_later()
        assert not lb.listener.may_accept
        lb.advance(RETRY_ACCEPT_S + 0.01)
        assert lb.listener.may_accept


def test_connections_of_an_address_are_counted_and_forgotten() -> None:
    config = """
listeners: [{bind: "127.0.0.1:5000", pool: app, limits: {connections_per_ip: 2}}]
pools: {app: {servers: ["127.0.0.1:9001"]}}
"""
    with FakeLb(config) as lb:
        clients = [lb.connect(), lb.connect(("192.0.2.8", 1)), lb.connect(("::ffff:192.0.2.7", 1))]
        assert lb.listener.runtime.per_ip.counts == {"192.0.2.7": 2, "192.0.2.8": 1}
        for client in clients:
            client.reset()
        assert lb.listener.runtime.per_ip.counts == {}


def limits(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> list[tuple[int, int]]:
    """Pretend these limits of open files; what was set."""
    state = [(soft, hard)]

    def setrlimit(which: int, value: tuple[int, int]) -> None:
        state.append(value)

    monkeypatch.setattr(resource, "getrlimit", lambda which: state[-1])
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    return state


@pytest.mark.parametrize("wanted", [None, 1, 100, 5_000, 1_000_000])
@pytest.mark.parametrize("files", [64, 256, 1024, 4096, 65_536, 1_048_576])
def test_the_plan_fits_the_limit_of_open_files(monkeypatch: pytest.MonkeyPatch, wanted: int | None, files: int) -> None:
    limits(monkeypatch, files, files)
    plan = plan_connections(wanted)
    assert 1 <= plan.limit <= (wanted or 10_000)
    assert 2 * plan.limit + min(BASE_FDS, files // 2) <= files
    assert 2 <= plan.admin <= files // 16
    if files >= 128:  # the two cannot take descriptors from one another
        assert 2 * plan.limit + 2 * min(plan.admin, 16) + plan.admin - min(plan.admin, 16) + BASE_FDS <= files
    assert bool(plan.warning) is (wanted is not None and plan.limit < wanted)


def test_without_an_admin_address_its_descriptors_are_for_traffic(monkeypatch: pytest.MonkeyPatch) -> None:
    limits(monkeypatch, 1024, 1024)
    assert plan_connections(None, has_admin=False).limit == plan_connections(None).limit + ADMIN_FDS // 2


def test_the_soft_limit_is_raised_to_the_hard_one(monkeypatch: pytest.MonkeyPatch) -> None:
    state = limits(monkeypatch, 1024, 65_536)
    plan = plan_connections(10_000)
    assert state[-1] == (65_536, 65_536)
    assert (plan.limit, plan.warning) == (10_000, "")


def test_a_warning_says_what_would_be_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    limits(monkeypatch, 1024, 1024)
    warning = plan_connections(5_000).warning
    assert "lowered from 5000" in warning and f"ulimit -n {2 * 5000 + SPARE_FDS + BASE_FDS + ADMIN_FDS}" in warning


def test_processes_that_share_a_limit_have_it_together(monkeypatch: pytest.MonkeyPatch) -> None:
    limits(monkeypatch, 1000, 1000)
    alone = plan_connections(5_000)
    assert plan_connections(5_000, n_processes=3).limit == alone.limit
    assert f"lowered from 5000 to {3 * alone.limit}:" in plan_connections(5_000, n_processes=3).warning
    assert plan_connections(2 * alone.limit, n_processes=2).warning == ""


def test_without_a_limit_of_open_files_the_config_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    limits(monkeypatch, resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert plan_connections(77).limit == 77
    assert plan_connections(None).limit == 10_000


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EADDRINUSE, "something else listens there"),
        (errno.EACCES, "CAP_NET_BIND_SERVICE"),
        (errno.EADDRNOTAVAIL, "this machine does not have that address"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_failed_bind_says_what_to_do(number: int, words: str) -> None:
    message = bind_message("listener web", parse_address("1.2.3.4:80"), OSError(number, os.strerror(number)))
    assert message.startswith("listener web: cannot listen on 1.2.3.4:80: ") and words in message


def test_the_words_are_the_system_s_for_an_address_and_the_binder_s_for_a_file() -> None:
    asyncio_s = OSError(errno.EADDRINUSE, "error while attempting to bind on address ('1.2.3.4', 80)")
    message = bind_message("admin.bind", parse_address("1.2.3.4:80"), asyncio_s)
    assert message.startswith("admin.bind: cannot listen on 1.2.3.4:80: Address already in use (something else listens")
    other = OSError(errno.EEXIST, "exists and is not a socket")
    message = bind_message("admin.bind", parse_address("unix:/run/a.sock"), other)
    assert message == "admin.bind: cannot listen on unix:/run/a.sock: exists and is not a socket"


def test_a_name_that_does_not_resolve_is_named() -> None:
    error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    message = bind_message("listener web", parse_address("nope:80"), error)
    assert message == "listener web: the host of nope:80 does not resolve: Name or service not known"
