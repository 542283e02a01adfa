"""Calls of gRPC's asyncio client: all kinds of them at once, deadlines, cancellations, metadata, compression."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest

from tests.support.daemon import LbProxy
from tests.support.programs import Program, grpc_echo
from tests.support.waiting import wait_until

TIMEOUT_S = 120.0
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
Servers = list[tuple[Program, int]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LbProxy, Servers]]:
    folder = tmp_path_factory.mktemp("aio")
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(grpc_echo(folder, name)) for name in "ab"]
        config: dict[str, object] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {
                "p": {
                    "servers": [f"127.0.0.1:{port}" for _, port in servers],
                    "strategy": "round_robin",
                    "protocol": "h2",
                    "health_check": "off",
                    "circuit_breaker": "off",
                }
            },
        }
        yield stack.enter_context(LbProxy(config, folder)), servers
        gc.collect()  # a call that was cancelled or failed is in a circle, and keeps the connection of its channel


@contextlib.asynccontextmanager
async def channel(
    site: tuple[LbProxy, Servers], compression: grpc.Compression = grpc.Compression.NoCompression
) -> AsyncIterator[grpc.aio.Channel]:
    address = f"127.0.0.1:{site[0].port('in')}"
    async with grpc.aio.insecure_channel(address, options=OPTIONS, compression=compression) as made:
        yield made


async def once(made: grpc.aio.Channel, message: bytes) -> bytes:
    return bytes(await made.unary_unary("/echo.Echo/Once")(message, timeout=TIMEOUT_S, wait_for_ready=True))


async def messages(count: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield b"%d" % number


async def test_many_calls_of_all_kinds_at_once(site: tuple[LbProxy, Servers]) -> None:
    async with channel(site) as made:

        async def each() -> None:
            call = made.stream_stream("/echo.Echo/Each")(messages(200), timeout=TIMEOUT_S)
            assert [bytes(item).partition(b":")[2] async for item in call] == [b"%d" % number for number in range(200)]

        async def count() -> None:
            call = made.unary_stream("/echo.Echo/Count")(b"300", timeout=TIMEOUT_S)
            assert [bytes(item) async for item in call] == [b"%d" % number for number in range(300)]

        async def sum_up() -> None:
            assert await made.stream_unary("/echo.Echo/Sum")(messages(500), timeout=TIMEOUT_S) == b"1390"

        async def ask() -> None:
            assert (await once(made, b"x" * 1000)).endswith(b"x" * 1000)

        await asyncio.gather(*[kind() for kind in (each, count, sum_up) for _ in range(4)], *[ask() for _ in range(40)])
        found = Counter([(await once(made, b"")).partition(b":")[0] for _ in range(20)])
    assert found == {b"a": 10, b"b": 10}


async def test_deadlines_and_cancellations(site: tuple[LbProxy, Servers]) -> None:
    def said(line: str) -> int:
        return sum(program.log.split("\n").count(line) for program, _ in site[1])

    async with channel(site) as made:
        wait = made.unary_unary("/echo.Echo/Wait")
        call = wait(b"aio-one", timeout=TIMEOUT_S)
        await asyncio.to_thread(wait_until, lambda: said("waits aio-one"), "the call to be at a server")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.to_thread(wait_until, lambda: said("cancelled aio-one"), "the server to hear of it")
        with pytest.raises(grpc.RpcError) as caught:
            await wait(b"aio-two", timeout=2.0)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert (await once(made, b"still there")).endswith(b":still there")
    await asyncio.to_thread(wait_until, lambda: site[0].metric("server_inflight") == 0, "nothing to be under way")


async def test_metadata_of_both_sides(site: tuple[LbProxy, Servers]) -> None:
    sent = (("x-told", "one"), ("x-told", "two"), ("x-told-bin", bytes(range(256))), ("x-told-empty", ""))
    async with channel(site) as made:
        call = made.unary_unary("/echo.Echo/Told")(b"", metadata=sent, timeout=TIMEOUT_S)
        lines = bytes(await call).decode().split("\n")
        assert lines == sorted(f"{name}={value!r}" for name, value in sent)
        first = await call.initial_metadata()
        last = await call.trailing_metadata()
        assert [value for name, value in first if name == "x-first"] == ["1", "2"]
        assert dict(first)["x-octets-bin"] == b"\x00\xff" and dict(last)["x-octets-bin"] == b"\xff\x00"
        assert dict(last)["x-last"] == "3"


def n_bytes(lb: LbProxy) -> float:
    """Of bodies, in both directions."""
    return lb.metric("request_bytes_total") + lb.metric("response_bytes_total")


@pytest.mark.parametrize("kind", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_messages(site: tuple[LbProxy, Servers], kind: grpc.Compression) -> None:
    message = b"a" * 1_000_000
    before = n_bytes(site[0])
    async with channel(site, kind) as made:
        assert bytes(await made.unary_unary("/echo.Echo/Told")(message, timeout=TIMEOUT_S)) == message
    assert 0 < n_bytes(site[0]) - before < len(message)  # it was compressed indeed, in both directions


async def test_fifty_channels(site: tuple[LbProxy, Servers]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(channel(site)) for _ in range(50)]
        answers = await asyncio.gather(*[once(made, b"%d" % number) for number, made in enumerate(channels)])
    assert [answer.partition(b":")[2] for answer in answers] == [b"%d" % number for number in range(50)]
