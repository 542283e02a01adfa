"""Certificates that change on disk: used for new connections within seconds, and nothing is dropped."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.support.certificates import Authority, CertFiles, TlsClient, replace, server_wrap
from tests.support.daemon import STOP_S, LbProxy
from tests.support.origin import Origin
from tests.support.rig import get
from tests.support.waiting import wait_until


@dataclass
class Stage:
    lb: LbProxy
    authority: Authority
    files: CertFiles

    def open(self) -> TlsClient:
        return TlsClient(self.lb.port("in"), self.authority.trusting())

    def serial(self) -> str:
        """Of the certificate that a new connection is shown."""
        with self.open() as client:
            assert client.ask(get("/serial")).status == 200
            certificate = client.tls.getpeercert()
            assert certificate is not None
            return str(certificate["serialNumber"])


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    authority = Authority(tmp_path / "ca")
    files = authority.issue("served", "localhost")
    with Origin() as origin:
        settings: dict[str, object] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p", "tls": files.tls}],
            "pools": {"p": {"servers": [origin.address]}},
        }
        with LbProxy(settings, tmp_path / "lb") as lb:
            yield Stage(lb, authority, files)


def test_new_files_are_used_and_no_request_fails(stage: Stage) -> None:
    first = stage.serial()
    stop = threading.Event()
    failures: list[BaseException] = []
    counts = [0, 0]

    def new_connections() -> None:
        try:
            while not stop.is_set():
                with stage.open() as client:
                    assert client.ask(get("/new")).status == 200
                counts[0] += 1
        except BaseException as error:
            failures.append(error)

    def one_connection() -> None:
        try:
            with stage.open() as client:
                while not stop.is_set():
                    assert client.ask(get("/kept")).status == 200
                    counts[1] += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for work in (new_connections, one_connection, new_connections)]
    for thread in threads:
        thread.start()
    try:
        stage.authority.issue("served", "localhost")
        wait_until(lambda: stage.serial() != first, "the new certificate to be served")
        done = counts[0]
        wait_until(lambda: failures or counts[0] > done + 20, "more connections")
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not failures
    assert counts[1]
    wait_until(lambda: "certificate files changed and are in use" in stage.lb.stderr, "the log to say it")


@pytest.mark.slow
def test_a_broken_file_keeps_the_old_one_and_is_said_once(stage: Stage) -> None:
    first = stage.serial()
    good = Path(stage.files.cert).read_bytes()
    replace(stage.files.cert, b"not a certificate\n")
    wait_until(lambda: "its new certificate files are not used" in stage.lb.stderr, "a warning")
    assert stage.serial() == first
    # Another kind of damage is another warning; the same one is not repeated.
    other = stage.authority.issue("other", "localhost")
    replace(stage.files.cert, Path(other.cert).read_bytes())
    wait_until(lambda: "is not the key of the certificate" in stage.lb.stderr, "a warning")
    assert stage.serial() == first
    stage.lb.wait_logged("is not PEM")
    replace(stage.files.cert, good)
    stage.authority.issue("served", "localhost")
    wait_until(lambda: stage.serial() != first, "the good certificate to be served")
    stage.lb.wait_logged("WARNING", times=2)


@pytest.mark.slow
def test_a_file_that_vanishes_for_a_while(stage: Stage) -> None:
    first = stage.serial()
    Path(stage.files.key).unlink()
    wait_until(lambda: "there is no file" in stage.lb.stderr, "a warning")
    assert stage.serial() == first
    stage.authority.issue("served", "localhost")
    wait_until(lambda: stage.serial() != first, "the new certificate to be served")


def test_the_expiry_metric_follows(stage: Stage) -> None:
    before = stage.lb.metric("tls_certificate_expiry_timestamp_seconds")
    stage.authority.issue("served", "localhost", expired=True)
    wait_until(
        lambda: stage.lb.metric("tls_certificate_expiry_timestamp_seconds") < before - 86400, "the metric to follow"
    )


def test_the_ca_of_servers_is_read_again(tmp_path: Path) -> None:
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(Path(old.ca).read_bytes())
    with Origin(wrap=server_wrap(new.issue("new", "127.0.0.1"))) as origin:
        pool = {"servers": [origin.address], "tls": {"ca": str(trusted)}, "health_check": "off"}
        settings: dict[str, object] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {"p": {**pool, "circuit_breaker": "off"}},
        }
        with LbProxy(settings, tmp_path / "lb") as lb:
            from tests.support.client import Client

            def status() -> int:
                with Client(lb.port("in")) as client:
                    return client.ask(get("/x")).status

            assert status() == 502
            replace(str(trusted), Path(new.ca).read_bytes())
            wait_until(lambda: status() == 200, "the new CA to be trusted")


def test_files_that_hang_do_not_hold_up_the_end(tmp_path: Path) -> None:
    """As on a file system whose server is gone."""
    files = Authority(tmp_path / "ca").issue("served", "localhost")
    settings: dict[str, object] = {
        "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p", "tls": files.tls}],
        "pools": {"p": {"servers": ["127.0.0.1:9"], "health_check": "off"}},
    }
    lb = LbProxy(settings, tmp_path / "lb").start()
    try:
        os.unlink(files.cert)
        os.mkfifo(files.cert)
        writer = wait_until(partial(opened, files.cert), "the new file to be read")
        lb.signal(signal.SIGTERM)
        assert lb.process is not None and lb.process.wait(STOP_S) == 0
        os.close(writer)
    finally:
        lb.kill()
    assert not lb.error_lines(), lb.stderr


def opened(pipe: str) -> int:
    """A descriptor to write to a named pipe, 0 while nobody reads it."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        assert error.errno == errno.ENXIO
        return 0
