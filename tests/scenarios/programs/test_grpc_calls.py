"""gRPC in HTTP mode: calls of one channel are spread over three real servers, and what they end with is told."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.support.daemon import LbProxy
from tests.support.programs import grpc_echo
from tests.support.waiting import wait_until

TIMEOUT_S = 120.0
# A channel of its own for each: gRPC would share one connection among equal channels.
OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 1 << 26),
    ("grpc.max_send_message_length", 1 << 26),
    ("grpc.enable_retries", 0),  # what fails, fails
]


class Site:
    """Three servers and the daemon before them."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.servers = [stack.enter_context(grpc_echo(folder, name)) for name in "abc"]
        addresses = [f"127.0.0.1:{port}" for _, port in self.servers]
        calls: dict[str, object] = {
            "servers": addresses,
            "strategy": "round_robin",
            "protocol": "h2",
            # Seldom: on a busy machine checks that are due at once are always under way, and have descriptors.
            "health_check": {"type": "grpc", "service": "echo.Echo", "interval": "30s", "timeout": "30s"},
            "circuit_breaker": "off",
        }
        config: dict[str, object] = {
            "listeners": [
                {"name": "in", "bind": "127.0.0.1:0", "pool": "calls"},
                {"name": "again", "bind": "127.0.0.1:0", "pool": "again"},
                {"name": "old", "bind": "127.0.0.1:0", "pool": "old"},
                {"name": "none", "bind": "127.0.0.1:0", "pool": "none"},
            ],
            "pools": {
                "calls": calls,
                "again": {
                    **calls,
                    "health_check": "off",
                    "retry": {"grpc": ["unavailable"], "idempotent": True, "attempts": 2},
                },
                "old": {"servers": addresses, "health_check": "off"},
                "none": {
                    **calls,
                    "servers": addresses[:1],
                    "health_check": {
                        "type": "grpc",
                        "service": "other",
                        "interval": "30s",
                        "timeout": "30s",
                        "fall": 1,
                    },
                    "fail_open": "off",
                },
            },
        }
        self.lb = stack.enter_context(LbProxy(config, folder))

    @contextlib.contextmanager
    def channel(self, listener: str = "in") -> Iterator[grpc.Channel]:
        with grpc.insecure_channel(f"127.0.0.1:{self.lb.port(listener)}", options=OPTIONS) as made:
            yield made

    def said(self, line: str) -> int:
        """How many lines of the servers' outputs are this one."""
        return sum(program.log.split("\n").count(line) for program, _ in self.servers)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        yield Site(tmp_path_factory.mktemp("calls"), stack)


def once(made: grpc.Channel, message: bytes, **options: object) -> bytes:
    answer: bytes = made.unary_unary("/echo.Echo/Once")(message, timeout=TIMEOUT_S, wait_for_ready=True, **options)
    return answer


def refusal(made: grpc.Channel, method: str, message: bytes, timeout_s: float = TIMEOUT_S) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        made.unary_unary(f"/echo.Echo/{method}")(message, timeout=timeout_s)
    return caught.value


def test_calls_of_one_channel_are_spread_evenly(site: Site) -> None:
    with site.channel() as made:
        found = Counter(once(made, b"x").partition(b":")[0] for _ in range(30))
    assert found == {b"a": 10, b"b": 10, b"c": 10}
    assert site.lb.metric("grpc_requests_total", pool="calls", grpc_status="0") >= 30
    connects = site.lb.metric("upstream_connects_total", pool="calls", result="ok")
    assert connects <= 6  # few connections, many calls


def test_messages_of_every_size_and_four_kinds_of_calls(site: Site) -> None:
    with site.channel() as made:
        for size in (0, 1, 65_535, 16_777_216):
            assert once(made, b"x" * size).partition(b":")[2] == b"x" * size
        messages = [b"%d-" % number + b"y" * (number * 10) for number in range(500)]
        echoed = made.stream_stream("/echo.Echo/Each")(iter(messages), timeout=TIMEOUT_S)
        assert [bytes(answer).partition(b":")[2] for answer in echoed] == messages
        counted = made.unary_stream("/echo.Echo/Count")(b"2000", timeout=TIMEOUT_S)
        assert [bytes(item) for item in counted] == [b"%d" % number for number in range(2000)]
        total = made.stream_unary("/echo.Echo/Sum")(iter(messages), timeout=TIMEOUT_S)
        assert total == b"%d" % sum(len(message) for message in messages)


def test_both_directions_at_once_one_message_after_the_other(site: Site) -> None:
    """Full duplex: nothing waits for the end of anything."""
    with site.channel() as made:
        turn = threading.Semaphore(0)
        is_over = threading.Event()

        def messages() -> Iterator[bytes]:
            for number in range(20):
                turn.acquire()
                if is_over.is_set():
                    return
                yield b"%d" % number

        replies = made.stream_stream("/echo.Echo/Each")(messages(), timeout=TIMEOUT_S)
        for number in range(20):
            turn.release()
            assert bytes(next(replies)).partition(b":")[2] == b"%d" % number
        assert list(replies) == []
        is_over.set()


def test_statuses_messages_and_trailers_pass(site: Site) -> None:
    with site.channel() as made:
        for name in ("NOT_FOUND", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED"):
            error = refusal(made, "End", name.encode())
            assert error.code() is grpc.StatusCode[name] and "says so: 100 %" in str(error.details())
            assert dict(error.trailing_metadata())["who"] in "abc"
    assert site.lb.metric("grpc_requests_total", pool="calls", grpc_status="5") == 1
    entry = site.lb.entries("/echo.Echo/End", 4)[0]
    assert (entry["status"], entry["end"], entry["protocol"]) == (200, "ok", "HTTP/2")


def test_a_deadline_is_passed_on_and_a_cancelled_call_is_cancelled_at_the_server(site: Site) -> None:
    with site.channel() as made:
        left_ms = int(made.unary_unary("/echo.Echo/Left")(b"", timeout=TIMEOUT_S))
        assert 0 < left_ms <= TIMEOUT_S * 1000.0
        call = made.unary_unary("/echo.Echo/Wait").future(b"one", timeout=TIMEOUT_S)
        wait_until(lambda: site.said("waits one") == 1, "the call to be at a server")
        call.cancel()
        wait_until(lambda: site.said("cancelled one") == 1, "the server to hear of it")
        error = refusal(made, "Wait", b"two", timeout_s=2.0)  # time enough for the server to begin
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        wait_until(lambda: site.said("cancelled two") == 1, "the server to hear of it")
        assert once(made, b"still there").endswith(b":still there")


def test_an_unavailable_server_is_tried_again_elsewhere(site: Site) -> None:
    before = site.lb.metric("grpc_requests_total", pool="again", grpc_status="14")
    with site.channel("again") as made:
        error = refusal(made, "End", b"UNAVAILABLE")  # by all three
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert site.lb.metric("grpc_requests_total", pool="again", grpc_status="14") == before + 3
    with site.channel() as made:
        refusal(made, "End", b"UNAVAILABLE")
    assert site.lb.metric("grpc_requests_total", pool="calls", grpc_status="14") == 1


def test_errors_of_lbproxys_own_are_statuses_that_say_what_to_do(site: Site) -> None:
    with site.channel("old") as made:
        error = refusal(made, "Once", b"x")
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED and "protocol: h2" in str(error.details())
    wait_until(
        lambda: site.lb.server_status("none")[0]["state"] == "down", "the server that lacks the service to be down"
    )
    assert "knows no service 'other'" in str(site.lb.server_status("none")[0])
    with site.channel("none") as made:
        error = refusal(made, "Once", b"x")
    assert error.code() is grpc.StatusCode.UNAVAILABLE and "no usable server" in str(error.details()).lower()
