"""TCP mode with bulk: the kernel moves the bytes, and nobody can tell from the streams."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bulk import MIB, Check, Pattern, flat_memory, pipes, receive_pattern, send_pattern, sending
from tests.support.client import linger_reset
from tests.support.daemon import LbProxy
from tests.support.waiting import wait_until

BULK = 8 * MIB
LONG = int(os.environ.get("LBPROXY_LONG_STREAM_MIB", "100")) * MIB
PAUSE_S = 0.01  # for every MiB
WRITE_S = 1.5


class Bench:
    """A daemon whose only server is this test: it holds both ends of every connection."""

    def __init__(self, lb: LbProxy, listener: socket.socket) -> None:
        self.lb = lb
        self._listener = listener
        self.pipes_before = pipes(lb)

    @contextlib.contextmanager
    def pair(self, name: str = "plain", *, small: bool = False) -> Iterator[tuple[socket.socket, socket.socket]]:
        """A client's socket and the server's socket at the other end. small: with small receive buffers."""
        with socket.socket() as client:
            if small:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            client.settimeout(60)
            client.connect(("127.0.0.1", self.lb.port(name)))
            server, _ = self._listener.accept()
            with server:
                if small:
                    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
                server.settimeout(60)
                yield client, server

    @property
    def n_splicing(self) -> int:
        """Pipes that are there now, pooled ones included (they go within two sweeps)."""
        return (pipes(self.lb) - self.pipes_before) // 2

    def last_entry(self) -> dict[str, object]:
        self.lb.check_idle()
        wait_until(self.lb.access_log, "a line in the access log")
        return self.lb.access_log()[-1]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LbProxy, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        listener.settimeout(60)
        pool: dict[str, object] = {"servers": [f"127.0.0.1:{listener.getsockname()[1]}"], "health_check": "off"}
        short = {"tunnel": "2s", "half_closed": f"{WRITE_S}s", "write": f"{WRITE_S}s"}
        settings: dict[str, object] = {
            "listeners": [
                {"name": "plain", "bind": "127.0.0.1:0", "mode": "tcp", "pool": "plain"},
                {"name": "short", "bind": "127.0.0.1:0", "mode": "tcp", "pool": "short"},
            ],
            "pools": {"plain": pool, "short": {**pool, "timeouts": short}},
        }
        with LbProxy(settings, tmp_path_factory.mktemp("splice")) as lb:
            yield lb, listener


@pytest.fixture
def bench(daemon: tuple[LbProxy, socket.socket]) -> Iterator[Bench]:
    lb, listener = daemon
    lb.access_log_path.write_bytes(b"")
    yield Bench(lb, listener)
    lb.check_idle()
    assert lb.metric("internal_errors_total") == 0
    assert not lb.error_lines()


def exchange_bytes(client: socket.socket, server: socket.socket, count: int = 1) -> None:
    """Small messages there and back."""
    for number in range(count):
        message = b"%06d" % number
        client.sendall(message)
        assert server.recv(64) == message
        server.sendall(message[::-1])
        assert client.recv(64) == message[::-1]


def move(source: socket.socket, sink: socket.socket, size: int = BULK, seed: int = 0) -> None:
    pattern = Pattern(size, seed)
    check = Check(pattern)
    with sending(source, pattern):
        receive_pattern(sink, check, size)


def move_spliced(bench: Bench, source: socket.socket, sink: socket.socket, seed: int = 0) -> None:
    """Bulk that is spliced. A pipe goes soon after its last byte, so a busy machine may miss it, and moves more."""

    def is_spliced() -> bool:
        move(source, sink, seed=seed)
        return bench.n_splicing == 1

    wait_until(is_spliced, "bulk not to be copied")


def test_to_the_kernel_and_back_within_one_connection(bench: Bench) -> None:
    with bench.pair() as (client, server):
        exchange_bytes(client, server, 20)
        assert bench.n_splicing == 0
        for seed in range(3):
            move_spliced(bench, server, client, seed=seed)
            exchange_bytes(client, server, 20)
            wait_until(lambda: bench.n_splicing == 0, "the direction to be copied again")
        move_spliced(bench, client, server)

        def has_two() -> bool:
            move(client, server)
            move(server, client)
            return bench.n_splicing == 2

        wait_until(has_two, "each direction to have a pipe of its own")
        wait_until(lambda: bench.n_splicing == 0, "silence to give the pipes back")
        exchange_bytes(client, server, 20)


def test_the_books_after_bulk(bench: Bench) -> None:
    with bench.pair() as (client, server):
        move(server, client, 5_000_001)
        move(client, server, 7_000_003)
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        server.close()
        assert client.recv(1) == b""
    entry = bench.last_entry()
    assert (entry["end"], entry["bytes_in"], entry["bytes_out"]) == ("ok", 7_000_003, 5_000_001)


@pytest.mark.parametrize("is_upload", [False, True])
def test_the_end_of_one_direction_is_passed_on_behind_its_last_byte(bench: Bench, is_upload: bool) -> None:
    with bench.pair() as (client, server):
        source, sink = (client, server) if is_upload else (server, client)
        pattern = Pattern(BULK)
        check = Check(pattern)
        with sending(source, pattern, fin=True):
            receive_pattern(sink, check)
        assert check.is_whole
        move(sink, source)  # the other direction goes on
        sink.shutdown(socket.SHUT_WR)
        assert source.recv(1) == b""
    assert bench.last_entry()["end"] == "ok"


def test_a_connection_that_both_sides_have_shut_down_is_not_a_reset_one(bench: Bench) -> None:
    """To the kernel it is closed, and the last megabytes are still on their way to a slow reader."""
    with bench.pair(small=True) as (client, server):
        pattern = Pattern(6 * MIB)
        check = Check(pattern)
        move(server, client)
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        with sending(server, pattern, fin=True):
            receive_pattern(client, check, 64 * 1024)
            time.sleep(1.0)  # some sweeps of the daemon
            receive_pattern(client, check)
        assert check.is_whole
    assert bench.last_entry()["end"] == "ok"


@pytest.mark.parametrize("is_client", [False, True])
@pytest.mark.parametrize("is_blocked", [False, True])
def test_a_reset_is_passed_on(bench: Bench, is_client: bool, is_blocked: bool) -> None:
    """Of the side that sends; also while its bytes wait in the pipe, when nobody reads from it."""
    with bench.pair(small=True) as (client, server):
        source, sink = (client, server) if is_client else (server, client)
        move_spliced(bench, source, sink)
        if is_blocked:
            source.settimeout(0.3)
            with pytest.raises(TimeoutError):  # until nothing moves any more
                send_pattern(source, Pattern(100 * MIB))
        linger_reset(source)
        with pytest.raises(ConnectionResetError):
            while sink.recv(65536):
                pass
    assert bench.last_entry()["end"] == ("client_abort" if is_client else "reset")


@pytest.mark.parametrize("is_client", [False, True])
def test_a_receiver_that_resets_in_the_middle(bench: Bench, is_client: bool) -> None:
    with bench.pair() as (client, server):
        source, sink = (server, client) if is_client else (client, server)
        move(source, sink)
        linger_reset(sink)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            send_pattern(source, Pattern(100 * MIB))
    assert bench.last_entry()["end"] == ("client_abort" if is_client else "reset")


def test_a_receiver_that_stops_reading_is_given_up(bench: Bench) -> None:
    with bench.pair("short", small=True) as (client, server):
        move(server, client)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            send_pattern(server, Pattern(100 * MIB))
    assert bench.last_entry()["end"] == "client_write_timeout"


def test_a_slow_receiver_is_not(bench: Bench) -> None:
    """It takes more than the write time-out for all of it, and never that long for a piece."""
    with bench.pair("short", small=True) as (client, server):
        pattern = Pattern(20 * MIB)
        check = Check(pattern)
        with sending(server, pattern):
            receive_pattern(client, check, pattern.size, pause_s=WRITE_S / 10)
        assert check.is_whole


def test_silence_ends_a_spliced_tunnel(bench: Bench) -> None:
    with bench.pair("short") as (client, server):
        move(server, client)
        move(client, server)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert bench.last_entry()["end"] == "tunnel_timeout"


@pytest.mark.parametrize("is_upload", [False, True])
def test_a_long_stream_past_a_slow_reader(bench: Bench, is_upload: bool) -> None:
    with bench.pair(small=True) as (client, server):
        source, sink = (client, server) if is_upload else (server, client)
        move(source, sink)  # what the first bulk allocates stays
        pattern = Pattern(LONG)
        check = Check(pattern)
        with flat_memory(bench.lb), sending(source, pattern, fin=True):
            receive_pattern(sink, check, pause_s=PAUSE_S)
        assert check.is_whole


def test_out_of_descriptors_means_copying(bench: Bench) -> None:
    pid = bench.lb.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    with bench.pair() as (client, server):
        exchange_bytes(client, server)
        try:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (bench.lb.fd_count() + 1, before[1]))
            move(server, client)
            move(client, server)
            assert bench.n_splicing == 0
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)

        def is_spliced_again() -> bool:
            move(server, client)
            return bench.n_splicing == 1

        wait_until(is_spliced_again, "lbproxy to ask again, which it does not at once")
        exchange_bytes(client, server)


def test_a_daemon_with_few_descriptors_keeps_them_for_connections(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        settings: dict[str, object] = {
            "listeners": [{"name": "plain", "bind": "127.0.0.1:0", "mode": "tcp", "pool": "p"}],
            "pools": {"p": {"servers": [f"127.0.0.1:{listener.getsockname()[1]}"], "health_check": "off"}},
            "limits": {"connections": 20},
        }
        with LbProxy(settings, tmp_path, nofile=112) as lb:
            bench = Bench(lb, listener)
            with contextlib.ExitStack() as stack:
                pairs = [stack.enter_context(bench.pair()) for _ in range(20)]
                seen = []
                for client, server in pairs:
                    move(server, client, 2 * MIB)
                    seen.append(bench.n_splicing)
                assert max(seen) <= 3, "20 connections and the daemon's own need the other 100"
                assert max(seen) > 0
            lb.check_idle()
            assert lb.metric("upstream_errors_total") == 0
