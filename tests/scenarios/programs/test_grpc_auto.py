"""gRPC to a pool with `protocol: auto`: a server that chooses HTTP/1.1 gets no calls, and others beside it get all."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from tests.support.certificates import Authority, CertFiles
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.origin import Origin
from tests.support.rig import get

TIMEOUT_S = 60.0


@contextlib.contextmanager
def of_grpc(files: CertFiles) -> Iterator[int]:
    """A server of gRPC over TLS, in this process."""
    handlers = grpc.method_handlers_generic_handler(
        "echo.Echo", {"Once": grpc.unary_unary_rpc_method_handler(lambda message, _: b"again " + message)}
    )
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((handlers,))
    keys = grpc.ssl_server_credentials([(Path(files.key).read_bytes(), Path(files.cert).read_bytes())])
    port = server.add_secure_port("127.0.0.1:0", keys)
    server.start()
    try:
        yield port
    finally:
        server.stop(0).wait()


@contextlib.contextmanager
def of_http1(files: CertFiles) -> Iterator[Origin]:
    """A server over TLS that chooses HTTP/1.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    context.set_alpn_protocols(["http/1.1"])
    with Origin(wrap=lambda sock: context.wrap_socket(sock, server_side=True)) as origin:
        yield origin


@pytest.fixture(scope="module")
def lb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LbProxy]:
    folder = tmp_path_factory.mktemp("auto")
    authority = Authority(folder / "ca")
    files = authority.issue("server", "127.0.0.1")
    with contextlib.ExitStack() as stack:
        port, old = stack.enter_context(of_grpc(files)), stack.enter_context(of_http1(files))
        pool = {"protocol": "auto", "tls": {"ca": authority.ca}, "health_check": "off", "strategy": "round_robin"}
        config: dict[str, object] = {
            "listeners": [{"name": name, "bind": "127.0.0.1:0", "pool": name} for name in ("mixed", "old")],
            "pools": {
                "mixed": {**pool, "servers": [f"127.0.0.1:{port}", old.address]},
                "old": {**pool, "servers": [old.address]},
            },
        }
        yield stack.enter_context(LbProxy(config, folder / "lb"))


def call(lb: LbProxy, listener: str, message: bytes, method: str = "Once") -> bytes:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(f"127.0.0.1:{lb.port(listener)}", options=options) as channel:
        answer: bytes = channel.unary_unary(f"/echo.Echo/{method}")(message, timeout=TIMEOUT_S)
        return answer


def test_calls_go_to_those_that_choose_http_2(lb: LbProxy) -> None:
    assert [call(lb, "mixed", b"%d" % number) for number in range(8)] == [b"again %d" % number for number in range(8)]
    assert lb.metric("upstream_errors_total", pool="mixed", reason="bad_response") > 0, "the other one was asked too"
    assert {server["state"] for server in lb.server_status("mixed")} == {"up"}, "that is no fault of its own"


def test_without_such_a_server_the_call_says_what_to_do(lb: LbProxy) -> None:
    with Client(lb.port("old")) as client:
        assert client.ask(get("/kept")).status == 200, "it serves HTTP/1.1"
    for method in ("Lost", "LostToo"):
        with pytest.raises(grpc.RpcError) as raised:
            call(lb, "old", b"lost", method)
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "HTTP/2" in raised.value.details()
        assert lb.entry(f"/echo.Echo/{method}")["end"] == "no_grpc"
    assert lb.server_status("old")[0]["state"] == "up"
    with Client(lb.port("old")) as client:
        assert client.ask(get("/kept")).status == 200
