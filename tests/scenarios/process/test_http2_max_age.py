"""`limits.h2.max_age` spreads channels over lbproxies that came later: fifty of gRPC's, and no call is lost.

What the channels connect to is one address with a balancer of connections behind it, as a service of Kubernetes is.
"""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import grpc
import pytest

from tests.support.daemon import LbProxy
from tests.support.programs import free_port, grpc_echo
from tests.support.waiting import wait_until

N_CHANNELS = 50
OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]
CALL_S = 120.0
PATIENCE_S = 150.0


def replica(folder: Path, port: int, server: int) -> LbProxy:
    config: dict[str, object] = {
        "listeners": [
            {"name": "in", "bind": f"127.0.0.1:{port}", "pool": "p", "limits": {"h2": {"max_age": "3s"}}},
        ],
        "pools": {"p": {"servers": [f"127.0.0.1:{server}"], "protocol": "h2", "health_check": "off"}},
    }
    return LbProxy(config, folder)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_channels_spread_over_replicas_that_came_later(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        _, server = stack.enter_context(grpc_echo(tmp_path, "server"))
        ports = [free_port() for _ in range(3)]
        pool = {
            "servers": [f"127.0.0.1:{port}" for port in ports],
            "strategy": "least_connections",
            "health_check": {"type": "tcp", "interval": "250ms", "rise": 1, "timeout": "30s"},
        }
        config: dict[str, object] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "mode": "tcp", "pool": "replicas"}],
            "pools": {"replicas": pool},
        }
        replicas = [stack.enter_context(replica(tmp_path / "0", ports[0], server))]
        front = stack.enter_context(LbProxy(config, tmp_path / "front"))
        wait_until(lambda: front.metric("server_up") == 1, "one replica to be known")
        failed: list[str] = []
        is_over = threading.Event()
        is_asked = threading.Semaphore(0)

        def asks() -> None:
            with contextlib.ExitStack() as channels:
                address = f"127.0.0.1:{front.port('in')}"
                methods = [
                    channels.enter_context(grpc.insecure_channel(address, options=OPTIONS)).unary_unary(
                        "/echo.Echo/Once"
                    )
                    for _ in range(N_CHANNELS)
                ]
                while not is_over.is_set():
                    calls = [method.future(b"x", timeout=CALL_S, wait_for_ready=True) for method in methods]
                    failed.extend(f"{call.code()} {call.details()}" for call in calls if call.exception() is not None)
                    is_asked.release()
                    is_over.wait(0.1)

        asking = threading.Thread(target=asks)
        asking.start()
        try:
            assert is_asked.acquire(timeout=PATIENCE_S)
            assert replicas[0].metric("client_connections", listener="in") >= N_CHANNELS
            for number in (1, 2):
                replicas.append(stack.enter_context(replica(tmp_path / str(number), ports[number], server)))
            wait_until(lambda: front.metric("server_up") == 3, "all replicas to be known")

            def is_even() -> bool:
                found = [one.metric("client_connections", listener="in") for one in replicas]
                return min(found) >= N_CHANNELS / 3 - 5

            wait_until(is_even, "each replica to have its share", PATIENCE_S)
            assert replicas[0].metric("h2_goaways_total", reason="max_age") >= N_CHANNELS / 2
        finally:
            is_over.set()
            asking.join()
        assert failed == []
