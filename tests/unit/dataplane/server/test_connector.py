"""Dials: what the system says becomes a row of the fault table, and each dial is counted once."""

from __future__ import annotations

import errno
import os

import pytest

from lbproxy import errors
from lbproxy.dataplane.exchange.verdicts import DIAL_FAULTS
from lbproxy.dataplane.server.connector import FAULT_BY_ERRNO, count_dial, fault_of
from lbproxy.errors import Fault, Retry
from tests.support.fake_transport import GET, FakeLb, ok, status_of

UNIX = """
listeners: [{bind: "127.0.0.1:5000", pool: app}]
pools: {app: {servers: ["unix:/run/name.sock"], health_check: off, retry: {attempts: 0}}}
"""


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (errno.ECONNREFUSED, errors.CONNECT_REFUSED),
        (errno.ENOENT, errors.CONNECT_REFUSED),
        (errno.EHOSTUNREACH, errors.CONNECT_UNREACHABLE),
        (errno.ENETUNREACH, errors.CONNECT_UNREACHABLE),
        (errno.ETIMEDOUT, errors.CONNECT_TIMEOUT),
        (errno.EMFILE, errors.LOCAL_RESOURCE),
        (errno.ENFILE, errors.LOCAL_RESOURCE),
        (errno.EADDRNOTAVAIL, errors.LOCAL_PORTS),
        (errno.EACCES, errors.CONNECT_ERROR),
        (errno.EPERM, errors.CONNECT_ERROR),
        (0, errors.CONNECT_ERROR),
    ],
)
def test_an_error_of_the_system_is_a_row(number: int, fault: Fault) -> None:
    assert fault_of(OSError(number, os.strerror(number))) is fault


def test_an_error_without_a_number_is_a_row_too() -> None:
    assert fault_of(OSError("Multiple exceptions: ...")) is errors.CONNECT_ERROR


def test_no_byte_was_sent_so_a_dial_fault_may_always_be_retried() -> None:
    assert all(fault.retry is Retry.ALWAYS and fault.blames for fault in DIAL_FAULTS)
    assert all(not fault.blames for fault in set(FAULT_BY_ERRNO.values()) - DIAL_FAULTS)


@pytest.mark.parametrize(
    ("fault", "label"),
    [
        (None, "ok"),
        (errors.CONNECT_REFUSED, "refused"),
        (errors.CONNECT_TIMEOUT, "timeout"),
        (errors.CONNECT_UNREACHABLE, "error"),
        (errors.LOCAL_PORTS, "error"),
    ],
)
def test_results_of_dials_are_counted(fault: Fault | None, label: str) -> None:
    with FakeLb() as lb:
        count_dial(lb.runtimes[0], fault)
        counts = {
            name: lb.of_servers("upstream_connects_total", name) for name in ("ok", "refused", "timeout", "error")
        }
        assert counts == {name: int(name == label) for name in counts}


def test_a_unix_socket_is_dialled_by_its_path() -> None:
    with FakeLb(UNIX) as lb:
        client = lb.connect()
        client.send(GET)
        assert lb.loop.dials[0].address == "/run/name.sock"
        lb.accept().send(ok())
        assert status_of(client.got()) == 200
        assert lb.of_servers("upstream_connects_total", "ok") == 1


def test_the_detail_is_the_system_s_sentence() -> None:
    with FakeLb(UNIX) as lb:
        client = lb.connect()
        client.send(GET)
        lb.refuse(errno.EACCES)
        assert b"Permission denied" in client.got()
        assert not lb.loop.dials


def test_a_dial_that_times_out_is_counted_once() -> None:
    with FakeLb(UNIX) as lb:
        client = lb.connect()
        client.send(GET)
        lb.advance(3.5)
        assert status_of(client.got()) == 504
        assert lb.of_servers("upstream_connects_total", "timeout") == 1
        assert lb.of_servers("upstream_connects_total", "error") == 0
