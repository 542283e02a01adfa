"""A worker of two: what it shares with the others, and what becomes of its clients."""

from __future__ import annotations

import contextlib
import os
import signal
import ssl
from pathlib import Path

from tests.support.certificates import Authority, TlsClient
from tests.support.client import Client
from tests.support.crew import GET, CrewProxy, crew_config, status_of
from tests.support.origin import Origin
from tests.support.waiting import wait_until


def test_who_waits_in_the_kernel_for_a_killed_worker_loses_nothing(lb: CrewProxy) -> None:
    pids = [lb.kill_member(name, signal.SIGSTOP) for name in ("1", "2")]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(lb.port("in"))) for _ in range(200)]
        for client in clients:
            client.send(GET)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert [client.response().status for client in clients] == [200] * 200
    for name, pid in zip(("1", "2"), pids, strict=True):
        lb.wait_replaced(name, pid)


def test_logs_are_opened_again_by_all(lb: CrewProxy) -> None:
    moved = lb.access_log_path.with_name("moved.log")
    lb.access_log_path.rename(moved)
    lb.signal(signal.SIGUSR1)
    wait_until(lambda: lb.access_log_path.exists(), "the new file")

    def in_both() -> bool:
        size = moved.stat().st_size
        assert {status_of(lb.port("in")) for _ in range(20)} == {200}
        return len(lb.access_log()) >= 20 and moved.stat().st_size == size

    wait_until(in_both, "both workers to write to the new file")


def test_a_worker_costs_little_memory_of_its_own(lb: CrewProxy) -> None:
    assert {status_of(lb.port("in")) for _ in range(50)} == {200}
    for name in ("1", "2"):
        assert lb.pss_bytes(name) < 25 << 20


def test_log_lines_name_the_process(lb: CrewProxy) -> None:
    assert " INFO lbproxy: [supervisor] lbproxy " in lb.stderr
    assert " INFO lbproxy.control: [controller] listening name=admin" in lb.stderr


def test_a_tls_session_is_resumed_whichever_worker_is_met(origin: Origin, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("here", "localhost")
    config = crew_config(origin)
    config["listeners"][0]["tls"] = {"cert": files.cert, "key": files.key}
    lb = CrewProxy(config, tmp_path / "lb").start()
    try:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = authority.trusting(minimum_version=version, maximum_version=version)
            with TlsClient(lb.port("in"), context) as first:
                assert first.ask(GET).status == 200  # the ticket comes with it
                session = first.tls.session
            for name in ("none", "1", "2"):
                if name != "none":
                    lb.wait_replaced(name, lb.kill_member(name))
                for _ in range(20):
                    with TlsClient(lb.port("in"), context, session=session) as later:
                        assert later.tls.session_reused
                        assert later.ask(GET).status == 200
        lb.stop(allow_errors=True)
    finally:
        lb.kill()
