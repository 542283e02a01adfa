"""A gRPC client and server (HTTP/2 from the first byte) through TCP mode: unary, streams, a server killed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import grpc
import pytest

from tests.support.daemon import LbProxy
from tests.support.programs import Program, grpc_echo
from tests.support.waiting import wait_until

TIMEOUT_S = 60.0
# A channel of its own for each: gRPC would share one connection among equal channels.
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LbProxy, list[tuple[Program, int]]]]:
    folder = tmp_path_factory.mktemp("grpc")
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(grpc_echo(folder, name)) for name in ("a", "b")]
        pool = {
            "servers": [f"127.0.0.1:{port}" for _, port in servers],
            "strategy": "round_robin",
            "health_check": {"type": "tcp", "interval": "250ms"},
        }
        config: dict[str, object] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "mode": "tcp", "pool": "models"}],
            "pools": {"models": pool},
        }
        yield stack.enter_context(LbProxy(config, folder)), servers


@contextlib.contextmanager
def channel(site: tuple[LbProxy, list[tuple[Program, int]]]) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{site[0].port('in')}", options=OPTIONS) as made:
        yield made


def once(made: grpc.Channel, message: bytes) -> bytes:
    answer: bytes = made.unary_unary("/echo.Echo/Once")(message, timeout=TIMEOUT_S, wait_for_ready=True)
    return answer


def test_unary_calls(site: tuple[LbProxy, list[tuple[Program, int]]]) -> None:
    names = set()
    for _ in range(2):
        with channel(site) as made:
            for message in (b"", b"hello", b"x" * 2_000_000):
                name, _, answer = once(made, message).partition(b":")
                assert answer == message
                names.add(name)
    assert names == {b"a", b"b"}  # connections are balanced, not calls


def test_streams_in_both_directions_at_once(site: tuple[LbProxy, list[tuple[Program, int]]]) -> None:
    with channel(site) as made:
        messages = [b"%d-" % number + b"y" * (number * 10) for number in range(1000)]
        answers = [
            bytes(answer).partition(b":")[2]
            for answer in made.stream_stream("/echo.Echo/Each")(iter(messages), timeout=TIMEOUT_S)
        ]
        assert answers == messages


@pytest.mark.slow
def test_a_long_answer_and_many_calls_share_a_connection(site: tuple[LbProxy, list[tuple[Program, int]]]) -> None:
    before = site[0].metric("client_connections_total")
    with channel(site) as made:
        long = made.unary_stream("/echo.Echo/Count")(b"20000", timeout=TIMEOUT_S)
        assert [once(made, b"%d" % number)[2:] for number in range(50)] == [b"%d" % number for number in range(50)]
        assert [bytes(item) for item in long] == [b"%d" % number for number in range(20_000)]
    assert site[0].metric("client_connections_total") == before + 1


def test_one_of_two_is_killed(site: tuple[LbProxy, list[tuple[Program, int]]]) -> None:
    """Last in this file. The channel learns of it by a reset, connects again, and reaches the server that is left."""
    lb, servers = site
    with channel(site) as one, channel(site) as two:
        homes = {once(made, b"").partition(b":")[0]: made for made in (one, two)}
        assert set(homes) == {b"a", b"b"}
        stream = homes[b"a"].stream_stream("/echo.Echo/Each")(endless(), timeout=TIMEOUT_S)
        assert next(stream) == b"a:."
        servers[0][0].kill()
        with pytest.raises(grpc.RpcError) as raised:
            for _ in stream:
                pass
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        for _ in range(5):
            assert once(homes[b"a"], b"again") == b"b:again"
            assert once(homes[b"b"], b"still") == b"b:still"
    wait_until(lambda: lb.metric("server_up") == 1, "the other to be down")


def endless() -> Iterator[bytes]:
    while True:
        yield b"."
