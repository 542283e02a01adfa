"""What a server says: what an answer is, and how each bad one and each bad end is named."""

from __future__ import annotations

import errno

import pytest

from lbproxy.dataplane.exchange.attempt import Attempt
from lbproxy.dataplane.server.upstream import UpstreamConnection
from lbproxy.telemetry.slots import PROCESS
from tests.support import build
from tests.support.fake_transport import GET, FakeLb, FakeTransport, body_of, ok, post, status_of
from tests.unit.dataplane.server.helpers import asked, config

# Nothing that a test can hand in fails between these two objects, and compiled code calls methods without a look-up.
sets_methods = pytest.mark.skipif(
    build.is_compiled(), reason="it sets a method of a class, which compiled code ignores"
)
INTERNAL_ERRORS = PROCESS.column("internal_errors_total")


# --- what is no response --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "bad_response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "bad_response"),
        (b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n", "bad_response"),
        (b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n", "bad_response"),
        (b"HTTP/2.0 200 OK\r\n\r\n", "bad_response"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "bad_response"),
        (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", "bad_response"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 11 + b"\r\n", "response_header_too_large"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 2000 + b"\r\n\r\n", "response_header_too_large"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 2000, "response_header_too_large"),
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 4, "too_many_interim"),
    ],
)
def test_what_is_no_response_is_502_and_cuts_the_server(answer: bytes, word: str) -> None:
    with FakeLb(config(limits="{head_bytes: 1KiB, headers: 10, interim_responses: 3}")) as lb:
        client, server = asked(lb)
        server.send(answer)
        got = client.got().rpartition(b"HTTP/1.1 103 Early Hints\r\n")[2]
        assert b"502 Bad Gateway" in (got if status_of(got) else client.everything)
        assert server.saw_reset and lb.ends == [word]
        assert lb.runtimes[0].server.errors == 1


def test_interim_answers_over_a_long_time_are_no_flood() -> None:
    """RFC 2518 asked servers for a 102 every 20 s, however long they work."""
    with FakeLb(config(limits="{interim_responses: 3}\n    timeouts: {response_head: 1h}")) as lb:
        client, server = asked(lb)
        for _ in range(30):
            server.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            lb.advance(20)
        server.send(ok(b"hi"))
        assert client.everything.count(b"102 Processing") == 30 and client.everything.endswith(b"\r\n\r\nhi")
        assert lb.ends == ["ok"]


def test_a_lenient_pool_is_lenient_to_heads_in_pieces() -> None:
    answer = b"HTTP/1.1 200 OK\nX : y\nContent-Length: 2\n\nhi"
    for step in (1, 2, 7, len(answer)):
        with FakeLb(config(limits="{}\n    lenient: true")) as lb:
            client, server = asked(lb)
            for start in range(0, len(answer), step):
                server.send(answer[start : start + step])
            assert b"\r\nX: y\r\n" in client.everything and client.everything.endswith(b"\r\n\r\nhi")
            assert lb.ends == ["ok"]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nX: y\nZ: 1", b"HTTP/1.1 200 OK\nX: y\r", b"garbage\n"])
def test_a_lenient_pool_does_not_wait_for_the_end_of_a_bad_head(answer: bytes) -> None:
    with FakeLb(config(limits="{}\n    lenient: true")) as lb:
        client, server = asked(lb)
        server.send(answer)
        assert status_of(client.got()) == 502 and server.saw_reset
        assert lb.ends == ["bad_response"]


def test_a_bad_chunk_in_the_body_cuts_both() -> None:
    with FakeLb(config()) as lb:
        client, server = asked(lb)
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
        server.send(b"xx\r\n")
        assert client.saw_reset and server.saw_reset
        assert lb.ends == ["response_bad_chunk"]


@pytest.mark.parametrize("end", ["fin", "reset"])
@pytest.mark.parametrize("sent", [b"HTTP/1.1 2", b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 2"])
def test_an_answer_that_ends_in_its_head(end: str, sent: bytes) -> None:
    with FakeLb(config()) as lb:
        client, server = asked(lb)
        server.send(sent)
        getattr(server, end)()
        assert b"HTTP/1.1 502 Bad Gateway\r\n" in client.got()
        assert lb.ends == ["truncated_head"]


@pytest.mark.parametrize(
    "answer", [ok(b"hello")[:-1], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n"]
)
def test_a_truncated_body_is_a_reset_for_the_client(answer: bytes) -> None:
    with FakeLb(config()) as lb:
        client, server = asked(lb)
        server.send(answer)
        server.fin()
        assert client.saw_reset
        assert not body_of(client.got()).endswith(b"0\r\n\r\n")
        assert lb.ends == ["truncated_body"]


# --- an answer in front of a failed write ---------------------------------------------------------------------------


def test_an_answer_that_came_before_the_reset_counts() -> None:
    with FakeLb(config()) as lb:
        client, server = asked(lb, post(b"0123456789")[:-5])
        server.send(ok(b"too much", status="413 Content Too Large"))
        server.reset()
        assert status_of(client.got()) == 413
        assert lb.ends == ["ok"] and client.saw_fin


def test_a_reset_is_named_reset_and_a_fin_closed_early() -> None:
    for end, word in (("reset", "reset"), ("fin", "closed_early")):
        with FakeLb(config()) as lb:
            client, server = asked(lb, post())
            getattr(server, end)()
            assert status_of(client.got()) == 502
            assert lb.ends == [word]


# --- the memo of response heads -------------------------------------------------------------------------------------


def test_equal_heads_share_a_parse_but_never_a_body() -> None:
    with FakeLb(config()) as lb:
        client, server = asked(lb)
        for body in (b"ab", b"cd", b"ef"):
            server.send(ok(body))
            assert body_of(client.got()) == body
            client.send(GET)
        server.send(ok(b"gh"))
        assert len(lb.pool.response_memo._known) == 1


def test_a_known_head_of_a_get_is_no_head_s_answer() -> None:
    with FakeLb(config()) as lb:
        client, server = asked(lb)
        server.send(ok(b"ab"))
        client.got()
        client.send(b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n")
        server.send(ok(b""))
        server_head = ok(b"ab")[:-2]
        assert body_of(client.got()) == b""
        client.send(b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n")
        server.send(server_head)
        assert body_of(client.got()) == b""
        assert lb.n_idle == 1


def test_answers_that_never_repeat_are_not_remembered() -> None:
    with FakeLb(config()) as lb:
        client, server = asked(lb)
        for number in range(20):
            server.send(ok(b"", f"X-Id: {number}"))
            assert b"X-Id: %d\r\n" % number in client.got()
            client.send(GET)
        server.send(ok())
        assert lb.pool.response_memo._known == {}


# --- large bodies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("piece", [1_000, 60_000, 700_000])
def test_a_large_answer_passes_unchanged(chunked: bool, piece: int) -> None:
    body = bytes(range(256)) * 4096
    with FakeLb(config()) as lb:
        client, server = asked(lb)
        answer = ok(body)
        if chunked:
            answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        server.send(*[answer[at : at + piece] for at in range(0, len(answer), piece)])
        got = body_of(client.got())
        if chunked:
            data = b""
            while not got.startswith(b"0\r\n"):
                size, _, got = got.partition(b"\r\n")
                data, got = data + got[: int(size, 16)], got[int(size, 16) + 2 :]
            got = data
        assert got == body
        client.send(GET)  # and the connection reads on as before
        server.send(ok())
        assert lb.ends == ["ok", "ok"] and lb.n_idle == 1


@pytest.mark.parametrize("piece", [1_000, 60_000, 700_000])
def test_a_large_request_passes_unchanged(piece: int) -> None:
    body = bytes(range(256)) * 4096
    with FakeLb(config()) as lb:
        client = lb.connect()
        request = post(body)
        client.send(request[:piece])
        server = lb.accept()
        client.send(*[request[at : at + piece] for at in range(piece, len(request), piece)])
        assert body_of(server.got()) == body
        server.send(ok())
        client.send(GET)
        server.send(ok())
        assert lb.ends == ["ok", "ok"]


def test_being_out_of_descriptors_is_not_the_server_s_fault() -> None:
    with FakeLb(config()) as lb:
        client = lb.connect()
        client.send(GET)
        lb.refuse(errno.EMFILE)
        assert status_of(client.got()) == 503
        assert lb.runtimes[0].server.errors == 0


def hurt(lb: FakeLb) -> int:
    """Internal errors since the last call."""
    count, lb.services.row[INTERNAL_ERRORS] = lb.services.row[INTERNAL_ERRORS], 0
    return count


def test_a_defect_when_it_is_connected_is_a_connection_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeLb(config()) as lb:
        client = lb.connect()
        client.send(GET)
        monkeypatch.setattr(FakeTransport, "set_write_buffer_limits", broken)
        lb.accept()
        monkeypatch.undo()
        assert hurt(lb) == 1
        assert status_of(client.got()) == 502 and lb.inflight == 0


@sets_methods
@pytest.mark.parametrize("name", ["upstream_blocked", "upstream_unblocked"])
def test_a_defect_in_flow_control_is_500(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with FakeLb(config()) as lb:
        client, server = asked(lb)
        monkeypatch.setattr(Attempt, name, broken)
        protocol = server.transport.get_protocol()
        assert isinstance(protocol, UpstreamConnection)
        protocol.pause_writing() if name == "upstream_blocked" else protocol.resume_writing()
        monkeypatch.undo()
        lb.loop.run()
        assert hurt(lb) == 1
        assert status_of(client.got()) == 500 and lb.inflight == 0 and not server.is_open


def broken(*args: object, **kwargs: object) -> None:
    raise ZeroDivisionError("on purpose")


@sets_methods
def test_a_defect_behind_a_whole_answer_does_not_leave_the_connection_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection was kept already when the request failed."""
    with FakeLb(config()) as lb:
        client, server = asked(lb)
        monkeypatch.setattr(Attempt, "response_received", broken)
        server.send(ok())
        monkeypatch.undo()
        assert hurt(lb) == 1
        assert status_of(client.got()) == 500
        assert lb.n_idle == 0 and lb.inflight == 0 and not server.is_open
