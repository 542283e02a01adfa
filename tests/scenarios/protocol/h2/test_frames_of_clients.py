"""Frame by frame, what RFC 9113 and RFC 7541 say of a client's frames, played against a running lbproxy."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from lbproxy.dataplane.client.http2_connection import CONNECTION_WINDOW, STREAM_WINDOW
from lbproxy.protocol.h2.codes import (
    ACK,
    DATA,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    PADDED,
    PING,
    PREFACE,
    SETTINGS,
    WINDOW_UPDATE,
)
from tests.support.daemon import LbProxy
from tests.support.h2_cases import ANSWERS, BYSTANDER, CLOSES, ENDS, RESETS, STREAM, Case, settings, u32
from tests.support.h2_cases_of_clients import HELD, cases
from tests.support.h2_cases_of_heads import GET, METHOD, SCHEME
from tests.support.h2_ends import frame, headers
from tests.support.h2_wire import FrameSocket
from tests.support.origin import Origin, Peer, echo
from tests.support.waiting import wait_until

LATER = 1001  # a stream that begins when the case is over
CASES = cases()


class Stage:
    """A daemon, and the server that sees what goes on: /held is never answered there."""

    def __init__(self, lb: LbProxy, origin: Origin, next_answer: list[bytes]) -> None:
        self.lb = lb
        self.origin = origin
        self.next_answer = next_answer  # to a request for /case

    def connect(self, listener: str = "plain") -> FrameSocket:
        return FrameSocket(socket.create_connection(("127.0.0.1", self.lb.port(listener))))

    def seen(self) -> list[str]:
        """What reached the server, whole, but for what every case asks."""
        return [request.target for request in self.origin.requests if request.target not in ("/bystander", "/later")]


def holds(peer: Peer) -> None:
    """Its default, but for /held."""
    while True:
        request = peer.read_head()
        if request.target == "/held":
            peer.read_to_end()
            return
        peer.read_body(request)
        peer.send(peer.origin.answer(request))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    next_answer: list[bytes] = []
    with Origin(
        default=holds, answer=lambda r: next_answer.pop() if next_answer and r.target == "/case" else echo(r)
    ) as origin:
        calm = {"health_check": "off", "circuit_breaker": "off", "retry": {"attempts": 0}}
        config: dict[str, object] = {
            "listeners": [
                {"name": "plain", "bind": "127.0.0.1:0", "pool": "p"},
                {"name": "only", "bind": "127.0.0.1:0", "pool": "p", "protocols": "h2"},
                {"name": "few", "bind": "127.0.0.1:0", "pool": "p", "limits": {"h2": {"streams": 2}}},
                {"name": "narrow", "bind": "127.0.0.1:0", "pool": "narrow"},
            ],
            "pools": {
                "p": {"servers": [origin.address], **calm},
                "narrow": {"servers": [origin.address], "max_inflight": 1, **calm},
            },
        }
        with LbProxy(config, tmp_path_factory.mktemp("frames")) as lb:
            yield Stage(lb, origin, next_answer)
            assert origin.violations == []


def begun(stage: Stage, listener: str = "plain") -> FrameSocket:
    """A connection on which both ends know the other's SETTINGS, and a request is under way."""
    peer = stage.connect(listener)
    peer.send(
        PREFACE, settings(), headers(BYSTANDER, [METHOD, SCHEME, (b":authority", b"a"), (b":path", b"/bystander")])
    )
    peer.round_trip(b"at first")
    return peer


def check_lives(peer: FrameSocket, case: Case) -> None:
    """The request that was under way goes on, and another one is answered."""
    if case.want.stream != BYSTANDER and not case.is_raw:
        peer.send(frame(DATA, END_STREAM, BYSTANDER, b"body"))
        assert peer.read_stream(BYSTANDER).body == b"POST /bystander 4\n", peer.summary()
    if case.listener != "few" and case.want.stream < LATER:
        peer.send(headers(LATER, [*GET[:3], (b":path", b"/later")], is_end=True))
        assert peer.read_stream(LATER).status == 200, peer.summary()


def check_outcome(peer: FrameSocket, case: Case) -> None:
    want = case.want
    if want.kind == CLOSES:
        peer.read_to_end()
        return
    if want.kind == ENDS:
        peer.read_to_end()
        assert peer.goaway in want.codes, peer.summary()
        return
    heard = peer.on(want.stream)
    if want.kind == ANSWERS:
        peer.read_stream(want.stream)
        assert (heard.status, heard.reset) == (want.codes[0], None), peer.summary()
    elif want.kind == RESETS:
        peer.read_until(lambda: heard.reset is not None, "RST_STREAM")
        assert heard.reset in want.codes and heard.status in (0, 400), peer.summary()
    check_lives(peer, case)
    peer.round_trip(b"at last!")
    assert peer.goaway is None, peer.summary()
    others = {
        number: one.reset
        for number, one in peer.streams.items()
        if one.reset is not None and number not in (want.stream, case.also)
    }
    assert others == {}, peer.summary()
    if want.kind not in (ANSWERS, RESETS):
        assert heard.reset is None, peer.summary()


@pytest.mark.parametrize("case", CASES, ids=[case.ident for case in CASES])
def test_frames_of_a_client(stage: Stage, case: Case) -> None:
    before = len(stage.seen())
    with stage.connect(case.listener) if case.is_raw else begun(stage, case.listener) as peer:
        for step in case.steps:
            if isinstance(step, int):
                peer.read_stream(step)
            else:
                peer.send(step)
        check_outcome(peer, case)
    assert len(stage.seen()) - before == case.reaches


# --- what takes more than one step ----------------------------------------------------------------------------------


def fill(stream_id: int, size: int) -> bytes:
    """So many octets of a body."""
    pieces = [16_384] * (size // 16_384) + [size % 16_384]
    return b"".join(frame(DATA, 0, stream_id, bytes(piece)) for piece in pieces if piece)


def test_6_9_1_data_beyond_the_window_of_a_stream(stage: Stage) -> None:
    """Requests that wait for a server give nothing back."""
    with begun(stage, "narrow") as peer:
        wait_until(lambda: stage.lb.metric("server_inflight", pool="narrow") == 1, "the first to be at the server")
        peer.send(headers(STREAM, HELD), fill(STREAM, STREAM_WINDOW))
        peer.round_trip(b"in bound")
        assert peer.on(STREAM).reset is None
        peer.send(frame(DATA, 0, STREAM, b"x"))
        peer.read_until(lambda: peer.on(STREAM).reset is not None, "the stream's end")
        assert peer.on(STREAM).reset == FLOW_CONTROL_ERROR
        peer.round_trip(b"still on")
        assert peer.goaway is None


def test_6_9_1_data_beyond_the_window_of_the_connection(stage: Stage) -> None:
    with begun(stage, "narrow") as peer:
        wait_until(lambda: stage.lb.metric("server_inflight", pool="narrow") == 1, "the first to be at the server")
        for number in range(CONNECTION_WINDOW // STREAM_WINDOW):
            peer.send(headers(STREAM + 2 * number, HELD), fill(STREAM + 2 * number, STREAM_WINDOW))
        peer.round_trip(b"in bound")
        peer.send(headers(STREAM + 100, HELD), frame(DATA, 0, STREAM + 100, b"x"))
        peer.read_to_end()
        assert peer.goaway == FLOW_CONTROL_ERROR


def test_6_9_1_padding_counts_as_data(stage: Stage) -> None:
    with begun(stage, "narrow") as peer:
        wait_until(lambda: stage.lb.metric("server_inflight", pool="narrow") == 1, "the first to be at the server")
        padded = frame(DATA, PADDED, STREAM, b"\xff" + bytes(16_000) + bytes(255))  # 16,256 octets of the window
        peer.send(headers(STREAM, HELD), padded * 16)
        peer.round_trip(b"in bound")
        assert peer.on(STREAM).reset is None
        peer.send(fill(STREAM, 3000))  # without padding there would be room for it
        peer.read_until(lambda: peer.on(STREAM).reset is not None, "the stream's end")
        assert peer.on(STREAM).reset == FLOW_CONTROL_ERROR


def test_6_9_2_an_answer_keeps_to_windows_that_open_and_shrink(stage: Stage) -> None:
    body = b"GET /case 0\n"
    with begun(stage) as peer:
        peer.send(settings((4, 0)), headers(STREAM, GET, is_end=True))
        heard = peer.on(STREAM)
        peer.read_until(lambda: heard.status == 200, "the head, which no window holds back")
        for octets, taken in (
            (b"", 0),
            (frame(WINDOW_UPDATE, 0, STREAM, u32(1)), 1),
            (settings((4, 4)), 5),
            (settings((4, 0)), 5),  # the window is below nothing now
            (frame(WINDOW_UPDATE, 0, STREAM, u32(4)), 5),
            (frame(WINDOW_UPDATE, 0, STREAM, u32(2)), 7),
            (settings((4, 0), (4, 3)), 10),
        ):
            peer.send(octets)
            peer.round_trip(b"%8d" % taken)
            assert heard.body == body[:taken]
        peer.send(settings((4, 100)))
        assert peer.read_stream(STREAM).body == body


def test_5_2_1_an_answer_keeps_to_the_window_of_the_connection(stage: Stage) -> None:
    size = 2**16 - 1
    big = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (size + 10) + bytes(size + 10)
    stage.next_answer.append(big)
    with begun(stage) as peer:
        peer.send(settings((4, 1 << 20)), headers(STREAM, GET, is_end=True))
        heard = peer.on(STREAM)
        peer.read_until(lambda: len(heard.body) == size, "all that the connection's window allows")
        peer.send(frame(WINDOW_UPDATE, 0, STREAM, u32(1000)))
        peer.round_trip(b"too much")
        assert len(heard.body) == size
        peer.send(frame(WINDOW_UPDATE, 0, 0, u32(1000)))
        assert len(peer.read_stream(STREAM).body) == size + 10


def test_6_5_3_each_settings_frame_is_acknowledged_once(stage: Stage) -> None:
    with begun(stage) as peer:
        before = sum(flags & ACK for _, flags, _, _ in peer.kinds(SETTINGS))
        peer.send(settings((1, 100)), settings(), settings((3, 7), (1, 0)), settings(flags=ACK))
        peer.round_trip(b"settings")
        assert sum(flags & ACK for _, flags, _, _ in peer.kinds(SETTINGS)) == before + 3


def test_6_7_a_ping_is_answered_with_what_it_brought(stage: Stage) -> None:
    with begun(stage) as peer:
        peer.send(*[frame(PING, flags, 0, b"%8d" % number) for number, flags in enumerate((0, 0xFE, ACK, 0))])
        peer.round_trip(b"the last")
        found = [(flags, body) for _, flags, _, body in peer.kinds(PING) if body != b"at first"]
        assert found == [(ACK, b"%8d" % number) for number in (0, 1, 3)] + [(ACK, b"the last")]


def test_5_4_3_a_connection_that_ends_takes_its_requests_along(stage: Stage) -> None:
    with begun(stage) as peer:
        peer.send(headers(STREAM, HELD, is_end=True))
        wait_until(lambda: stage.lb.metric("server_inflight", pool="p") >= 2, "both to be under way")
    wait_until(lambda: stage.lb.metric("server_inflight", pool="p") == 0, "neither to be left")


def test_8_2_3_crumbs_are_one_cookie_for_the_server(stage: Stage) -> None:
    fields = [*GET, (b"cookie", b"a=b"), (b"x-a", b"b"), (b"cookie", b"c=d; e=f"), (b"cookie", b"g=h")]
    with begun(stage) as peer:
        peer.send(headers(STREAM, fields, is_end=True))
        assert peer.read_stream(STREAM).status == 200
    request = next(one for one in reversed(stage.origin.requests) if one.target == "/case")
    assert request.all("cookie") == ["a=b; c=d; e=f; g=h"]


def test_8_3_2_an_answer_has_a_status_first_and_no_field_of_http_1(stage: Stage) -> None:
    fields = b"Connection: X-Own, keep-alive\r\nKeep-Alive: timeout=5\r\nX-Own: 1\r\nX-Mixed-Case: Yes\r\n"
    stage.next_answer.append(b"HTTP/1.1 200 Fine\r\nContent-Length: 0\r\n" + fields + b"\r\n")
    with begun(stage) as peer:
        peer.send(headers(STREAM, GET, is_end=True))
        (head,) = peer.read_stream(STREAM).heads
        assert next(iter(head)) == ":status" and head["x-mixed-case"] == "Yes"
        assert not {"connection", "keep-alive", "x-own"} & head.keys()
        assert [name for name in head if name != name.lower()] == []
