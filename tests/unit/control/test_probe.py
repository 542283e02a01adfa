import pytest

from lbproxy.address import Address, parse_address
from lbproxy.config.model import Expect, HealthCheck
from lbproxy.control.probe import LIMIT_BYTES, Answer, Greeting, ProbeSpec, Result, Verdict
from lbproxy.dataplane.tls_settings import PoolTlsFiles, PoolTlsSettings

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready"


def spec(**settings: object) -> ProbeSpec:
    return ProbeSpec.from_config(HealthCheck.model_validate({"type": "http", "path": "/health", **settings}))


def feed(made: ProbeSpec, *pieces: bytes) -> Result | None:
    """The result after these pieces; b"" is the end of the stream, by FIN or by a reset."""
    answer = Answer(made)
    result = None
    for piece in pieces:
        assert result is None
        result = answer.feed(piece) if piece else answer.end()
    return result


def verdict(made: ProbeSpec, *pieces: bytes) -> Verdict | None:
    result = feed(made, *pieces)
    return result.verdict if result is not None else None


def test_the_request_says_who_asks_and_closes() -> None:
    assert spec().request(parse_address("127.0.0.1:5001")) == (
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1:5001\r\nUser-Agent: lbproxy-health-check\r\nAccept: */*\r\n"
        b"Connection: close\r\n\r\n"
    )


def test_the_request_carries_what_was_configured() -> None:
    made = spec(method="POST", host="model.local", headers={"accept": "text/plain", "X-Probe": "1"}, body="{}")
    head, _, body = made.request(Address("", 0, "/run/a.sock")).partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /health HTTP/1.1",
        b"Host: model.local",
        b"User-Agent: lbproxy-health-check",
        b"Content-Length: 2",
        b"accept: text/plain",
        b"X-Probe: 1",
        b"Connection: close",
    ]
    assert body == b"{}"


@pytest.mark.parametrize(("method", "is_said"), [("POST", True), ("PUT", True), ("PATCH", True), ("GET", False)])
def test_a_check_without_a_body_says_so_where_one_is_expected(method: str, is_said: bool) -> None:
    """Some servers answer 411 else, and would be down for ever."""
    made = spec(method=method).request(parse_address("127.0.0.1:5001"))
    assert (b"\r\nContent-Length: 0\r\n" in made) is is_said
    assert made.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("host", "address", "expected"),
    [
        ("models.internal", "10.0.0.1:5001", b"models.internal:5001"),
        ("10.0.0.1", "10.0.0.1:5001", b"10.0.0.1:5001"),
        ("::1", "[::1]:5001", b"[::1]:5001"),
        ("", "unix:/run/a.sock", b"localhost"),
    ],
)
def test_a_server_by_name_is_asked_by_name(host: str, address: str, expected: bytes) -> None:
    request = spec().named(host).request(parse_address(address))
    assert request.split(b"\r\n")[1] == b"Host: " + expected


def test_another_port_is_used_for_tcp_addresses_only() -> None:
    made = spec(port=9000)
    assert made.target(parse_address("10.0.0.1:5001")) == Address("10.0.0.1", 9000)
    assert made.target(parse_address("unix:/run/a.sock")) == parse_address("unix:/run/a.sock")


@pytest.mark.parametrize("size", [1, 7, len(OK)])
def test_an_answer_passes_however_it_is_cut(size: int) -> None:
    answer = Answer(spec())
    results = [answer.feed(OK[start : start + size]) for start in range(0, len(OK), size)]
    assert [result for result in results[:-1] if result is not None] == []
    assert results[-1] == Result(Verdict.PASS, why="answered 200 to GET /health")


@pytest.mark.parametrize(
    ("status", "expected"), [(200, Verdict.PASS), (399, Verdict.PASS), (404, Verdict.FAIL), (500, Verdict.FAIL)]
)
def test_the_status_decides(status: int, expected: Verdict) -> None:
    assert verdict(spec(), b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status) is expected


def test_expected_statuses_can_be_listed() -> None:
    made = spec(expect={"status": "200,404-405"})
    assert verdict(made, b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n") is Verdict.PASS
    result = feed(made, b"HTTP/1.1 301 X\r\nContent-Length: 0\r\n\r\n")
    assert result == Result(Verdict.FAIL, "status", "answered 301 to GET /health, expected 200,404-405")


def test_the_body_must_match() -> None:
    made = spec(expect={"body": "re[a]dy$"})
    assert verdict(made, OK) is Verdict.PASS
    result = feed(made, OK.replace(b"ready", b"wait!"))
    assert result is not None
    assert (result.verdict, result.reason) == (Verdict.FAIL, "body")


def test_only_the_first_64_kib_of_a_body_are_read() -> None:
    made = spec(expect={"body": "needle"})
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n"
    assert verdict(made, head, b"needle" + b"x" * LIMIT_BYTES) is Verdict.PASS
    assert verdict(made, head, b"x" * LIMIT_BYTES) is Verdict.FAIL


def test_an_endless_head_fails() -> None:
    assert verdict(spec(), b"HTTP/1.1 200 OK\r\n", b"X: " + b"x" * LIMIT_BYTES) is Verdict.FAIL


def test_interim_answers_are_skipped() -> None:
    assert verdict(spec(), b"HTTP/1.1 100 Continue\r\n\r\n", OK) is Verdict.PASS
    assert verdict(spec(), b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK) is Verdict.PASS


def test_a_head_answer_is_complete_without_its_body() -> None:
    assert verdict(spec(method="HEAD"), b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n") is Verdict.PASS


def test_an_answer_may_end_with_the_connection() -> None:
    made = spec(expect={"body": "ready"})
    assert verdict(made, b"HTTP/1.0 200 OK\r\n\r\n", b"rea", b"dy", b"") is Verdict.PASS


@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.1 2", b""),
        (b"HTTP/1.1 200 OK", b""),
        (b"HTTP/1.1 100 Continue\r\n", b""),
        (b"SSH-2.0-OpenSSH_9\r\n",),
        (b"\x16\x03\x01",),
        (b"HTTP/2 200 OK\r\n",),
        (b"HTTP/1.1 2000 OK\r\n",),
        (b"HTTP/1.1 101 X\r\n\r\n",),
    ],
)
def test_what_is_no_answer_fails(pieces: tuple[bytes, ...]) -> None:
    assert verdict(spec(), *pieces) is Verdict.FAIL


def test_a_tcp_check_from_config() -> None:
    made = ProbeSpec.from_config(HealthCheck(type="tcp", send="PING\r\n", expect=Expect(text="+PONG"), timeout=1.0))
    assert (made.is_http, made.send, made.expect, made.timeout_s) == (False, b"PING\r\n", b"+PONG", 1.0)


def test_the_name_of_a_server_over_tls() -> None:
    files = PoolTlsFiles(verify=False)
    made = ProbeSpec.from_config(HealthCheck(), tls=PoolTlsSettings(files, files.load()))
    assert made.named("model.internal").tls_name == "model.internal"
    assert made.named("").tls_name is None
    assert spec().named("model.internal").tls_name is None


# --- how an answer is written, and how it ends ----------------------------------------------------------------------


def test_the_end_of_a_stream_without_an_answer_is_no_verdict() -> None:
    assert Answer(spec()).end() is None


@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.1 200 OK\nContent-Length: 5\nX: y\n\nready",),  # bare LF: health scripts with echo
        (b"HTTP/1.1 200 OK\n\nready\n", b""),
        (b"HTTP/1.0 200 OK\r\n\nready", b""),
        (b"HTTP/1.1 200\r\n\r\nready", b""),  # no reason phrase
        (b"HTTP/1.1 200 OK\r\n", b""),  # a status line and nothing else
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nready", b""),  # cut, but it was read
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n", b""),
        (b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5 \nready\n0\n\n",),
        (b"HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\n\n", b""),
    ],
)
def test_what_arrived_is_judged(pieces: tuple[bytes, ...]) -> None:
    assert verdict(spec(), *pieces) is Verdict.PASS


@pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_chunked_body_is_read_however_it_is_cut(newline: bytes, size: int) -> None:
    lines = [b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", b"", b"3;x=y", b"rea", b"2", b"dy", b"0", b"", b""]
    data = newline.join(lines)
    answer = Answer(spec(expect={"body": "^ready$"}))
    results = [answer.feed(data[start : start + size]) for start in range(0, len(data), size)]
    assert next(result for result in results if result is not None).verdict is Verdict.PASS


def test_a_body_that_was_cut_is_judged_by_what_arrived() -> None:
    made = spec(expect={"body": "ready"})
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"
    assert verdict(made, head + b"ready", b"") is Verdict.PASS
    assert verdict(made, head + b"rea", b"") is Verdict.FAIL
    assert verdict(made, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nready", b"") is Verdict.PASS


def test_a_bad_status_fails_however_the_stream_ends() -> None:
    result = feed(spec(), b"HTTP/1.1 503 Loading\n", b"")
    assert result == Result(Verdict.FAIL, "status", "answered 503 to GET /health, expected 200-399")


def test_a_tcp_answer_is_judged_by_what_arrived() -> None:
    made = ProbeSpec.from_config(HealthCheck(type="tcp", send="PING\r\n", expect=Expect(text="+PONG"), timeout=1.0))
    greeting = Greeting(made)
    assert greeting.feed(b"+PO") is None
    assert greeting.feed(b"NG\r\n") == Result(Verdict.PASS, why="answered as expected")
    cut = Greeting(made)
    assert cut.feed(b"+PO") is None
    assert cut.end() == Result(Verdict.FAIL, "answer", "answered '+PO' instead of '+PONG'")
    assert Greeting(made).end() is None


@pytest.mark.parametrize(
    ("host", "address", "expected"),
    [
        ("A.Example.", "10.0.0.1:5001", b"a.example:5001"),
        ("fe80::1%eth0", "[fe80::1%eth0]:5001", b"[fe80::1]:5001"),
    ],
)
def test_every_spelling_of_a_server_is_one_host(host: str, address: str, expected: bytes) -> None:
    request = spec().named(host).request(parse_address(address))
    assert request.split(b"\r\n")[1] == b"Host: " + expected
