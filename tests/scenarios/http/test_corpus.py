"""The raw corpus: what a client or a server may send, and what has to come of it, whatever the segmentation.

One daemon and one server for each direction. After every case a probe on the same connection must get its own answer,
so a byte that was read twice or not at all shows at once; at the end the requests that reached the server are counted
against the daemon's own books.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.client import Client, crlf_splits, each_byte, receive
from tests.support.corpus import Case, load
from tests.support.daemon import LbProxy
from tests.support.origin import Origin, Peer
from tests.support.waiting import wait_until
from tests.support.wire import Ended, Request, Response, WireError

CORPUS = Path(__file__).parent / "corpus"
REQUESTS = load(CORPUS / "requests.txt")
RESPONSES = load(CORPUS / "responses.txt")
MODES = ("whole", "bytes", "splits")
PROBE = b"GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n"
HOP_FIELDS = ("keep-alive", "proxy-connection", "proxy-authorization", "http2-settings", "transfer_encoding")


def config(address: str) -> dict[str, object]:
    pool = {
        "servers": [address],
        "health_check": "off",
        "retry": {"attempts": 0},
        "timeouts": {"connect": "60s", "response_head": "60s", "read": "60s", "write": "60s"},
    }
    listener = {
        "name": "main",
        "bind": "127.0.0.1:0",
        "protocols": "h1",  # so that the preface of HTTP/2 is what it was: a bad request line
        "pool": "main",
        "timeouts": {
            "request_head": "30s",
            "request_body": "30s",
        },  # below the client's
    }
    return {"listeners": [listener], "pools": {"main": pool}}


@dataclass
class Stage:
    """A daemon between this test and a server, and how many requests the tests know to have passed."""

    lb: LbProxy
    origin: Origin
    current: Playing
    broken_off: int = 0  # requests that were refused in their body: a server was chosen, it saw a part or nothing

    @property
    def port(self) -> int:
        return self.lb.port("main")

    def books_agree(self) -> None:
        """Every request that the server saw whole has its log line, and there are no more lines than there can be."""
        seen = len(self.origin.requests)
        wait_until(lambda: self._logged() >= seen, f"{seen} log lines with a server")
        assert self._logged() <= seen + self.broken_off
        assert not self.origin.violations

    def _logged(self) -> int:
        return sum(bool(entry["server"]) for entry in self.lb.access_log())


@dataclass
class Playing:
    """The answer that the server gives to /case at the moment."""

    chunks: list[bytes] = field(default_factory=list)
    end: str = ""
    done: threading.Event = field(default_factory=threading.Event)
    connection: int = -1


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("corpus")) as stage:
        yield stage


@pytest.fixture(scope="module")
def patient_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Its server never closes a connection soon after an answer, from which a limit of requests would be learned."""
    with staged(tmp_path_factory.mktemp("patient")) as stage:
        yield stage


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    current = Playing()

    def play(c: Peer) -> None:
        while True:
            request = c.read_request()
            if request.target != "/case":
                c.send(c.origin.answer(request))
                continue
            current.connection = c.number
            try:
                c.send(*current.chunks)
                if current.end == "rst":
                    c.reset()
                    return
                if current.end == "fin":
                    c.fin()
            finally:
                current.done.set()

    with Origin(default=play) as origin, LbProxy(config(origin.address), folder) as lb:
        stage = Stage(lb, origin, current)
        yield stage
        stage.books_agree()


def segmentations(data: bytes, mode: str) -> Iterator[list[bytes]]:
    if mode == "whole":
        yield [data]
    elif mode == "bytes":
        yield each_byte(data)
    else:
        yield from crlf_splits(data)


def own_answer(response: Response) -> bool:
    return response.status == 200 and response.body == b"GET /probe 0\n"


# --- requests ---


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", REQUESTS, ids=lambda case: case.id)
def test_request(stage: Stage, case: Case, mode: str) -> None:
    for chunks in segmentations(case.data, mode):
        where = f"{case.id} ({case.source}) {mode}, cut at {len(chunks[0])}: {case.data[:120]!r}"
        seen = len(stage.origin.requests)
        stage.broken_off += "partial" in case.flags or case.kind == "safe"
        parts = len(stage.origin.partials)
        with Client(stage.port) as client:
            client.send(*chunks)
            check_request(case, client, stage, where)
        arrived = [request for request in stage.origin.requests[seen:] if request.target != "/probe"]
        assert not stage.origin.violations, where
        assert not any("smuggled" in request.target for request in arrived), where
        check_arrived(case, arrived, where)
        if case.kind == "reject" and "partial" not in case.flags:
            assert len(stage.origin.partials) == parts, f"{where}: a head went upstream"


def check_request(case: Case, client: Client, stage: Stage, where: str) -> None:
    if case.kind == "reject":
        rejected(client, case.codes, where)
    elif case.kind == "local":
        assert client.response().status in case.codes, where
        probe(client, where)
    elif case.kind == "safe":
        first = client.response(is_head=case.data.startswith(b"HEAD"))
        if first.status < 300:
            probe_or_end(client, first, where)
        elif not first.is_kept_alive:
            client.finish_writing()
            assert client.wait_end() == "fin", where
    else:
        methods = ["HEAD"] if case.data.startswith(b"HEAD") else []
        exchange = receive(client, case.count, methods)
        assert exchange.statuses == [200] * case.count and not exchange.error, f"{where}: {exchange}"
        if "then" in case.options:
            rejected(client, frozenset(map(int, case.options["then"].split(b","))), where)
        elif "close" in case.flags:
            assert client.wait_end() == "fin", where
        else:
            probe(client, where)


def rejected(client: Client, codes: frozenset[int], where: str) -> None:
    answer = client.response()
    assert answer.status in codes, f"{where}: {answer.status} {answer.body!r}"
    assert not answer.is_kept_alive, f"{where}: the answer does not say Connection: close"
    assert client.wait_end() == "fin", f"{where}: the connection did not end in order"


def probe(client: Client, where: str) -> Response:
    answer = client.ask(PROBE)
    assert own_answer(answer), f"{where}: the probe got {answer}"
    return answer


def probe_or_end(client: Client, answer: Response, where: str) -> None:
    if answer.is_kept_alive:
        probe(client, where)
    else:
        assert client.wait_end() == "fin", where


def check_arrived(case: Case, arrived: list[Request], where: str) -> None:
    if case.kind in ("reject", "local"):
        assert not arrived, where
        return
    if case.kind == "safe":
        assert len(arrived) <= 1, where
        return
    assert len(arrived) == case.count, f"{where}: {[(r.method, r.target) for r in arrived]}"
    first = arrived[0]
    assert first.method == case.expected_method, where
    assert first.target == case.expected_target, where
    assert first.version == "HTTP/1.1", where
    assert first.body == case.expected_body, where
    if "host" in case.options:
        assert first.get("host") == case.options["host"].decode(), where
    assert "lbproxy" in (first.get("via") or ""), where
    check_fields(case, first, where)
    for name in HOP_FIELDS:
        assert not first.all(name), f"{where}: {name} was passed on"


def check_fields(case: Case, message: Request | Response, where: str) -> None:
    for name, value in case.fields.items():
        assert message.all(name) == [value], f"{where}: {name}: {message.all(name)}"
    for name, part in case.contains.items():
        assert part in ", ".join(message.all(name)), f"{where}: {name}: {message.all(name)}"
    for name in case.absent:
        assert not message.all(name), f"{where}: {name}: {message.all(name)}"
        assert name not in [key for key, _ in message.trailers], where


# --- answers ---

ASK = {
    "GET": b"GET /case HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD": b"HEAD /case HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST": b"POST /case HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "10": b"GET /case HTTP/1.0\r\nHost: a\r\n\r\n",
    "10ka": b"GET /case HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
    "te": b"GET /case HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: trailers\r\n\r\n",
    "ws": b"GET /case HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", RESPONSES, ids=lambda case: case.id)
def test_response(request: pytest.FixtureRequest, case: Case, mode: str) -> None:
    stage: Stage = request.getfixturevalue("patient_stage" if "reused" in case.flags else "stage")
    kind = case.options.get("req", b"GET").decode()
    for chunks in segmentations(case.data, mode):
        where = f"{case.id} ({case.source}) {mode}, cut at {len(chunks[0]) if chunks else 0}: {case.data[:120]!r}"
        stage.current.chunks, stage.current.end = chunks, case.end
        stage.current.done.clear()
        with Client(stage.port) as client:
            client.send(ASK[kind])
            answer, cut = answer_or_cut(client, kind == "HEAD", where)
            assert stage.current.done.wait(60), f"{where}: the server did not finish"
            used = stage.current.connection
            check_answer(case, kind, answer, cut, where)
            if answer is not None and answer.is_kept_alive and not cut:
                follow_up = probe(client, where)
            else:
                if "close" in case.flags:
                    assert client.wait_end() == "fin", where
                with Client(stage.port) as another:
                    follow_up = probe(another, where)
        if "reused" in case.flags:
            assert follow_up.get("x-connection") == str(used), f"{where}: the server's connection was not kept"
        if "fresh" in case.flags:
            assert follow_up.get("x-connection") != str(used), f"{where}: the server's connection was used again"


def answer_or_cut(client: Client, is_head: bool, where: str) -> tuple[Response | None, str]:
    """The answer, and how the connection broke if it broke inside it ("" if the answer is complete)."""
    try:
        return client.response(is_head=is_head), ""
    except Ended as ended:
        partial = ended.partial
        return (partial if isinstance(partial, Response) else None), ended.how
    except WireError as error:
        raise AssertionError(f"{where}: lbproxy sent bad HTTP: {error}") from None


def check_answer(case: Case, kind: str, answer: Response | None, cut: str, where: str) -> None:
    if case.kind == "502":
        assert answer is not None and not cut and answer.status == 502, f"{where}: {answer} {cut}"
        assert answer.get("content-type") == "application/problem+json", where
        return
    if case.kind in ("cut", "safe"):
        assert cut in ("", "rst"), f"{where}: the cut looks like an orderly end"
        if case.kind == "cut" and not cut:
            assert answer is not None and answer.status == 502, f"{where}: looks complete: {answer}"
        return
    assert answer is not None and not cut, f"{where}: {answer} {cut}"
    assert answer.status in case.codes, f"{where}: {answer}"
    assert answer.body == case.expected_body, f"{where}: {answer.body[:200]!r}"
    # Those who ask for trailers get the harmless ones.
    trailers = [("x-sum", "1")] if kind == "te" and b"X-Sum" in case.data else []
    assert answer.trailers == trailers, f"{where}: trailers {answer.trailers}"
    if kind in ("10", "10ka"):
        assert answer.framing != "chunked", where
    if "interim" in case.options:
        wanted = [int(code) for code in case.options["interim"].split(b",") if code]
        assert [one.status for one in answer.interim] == wanted, where
    check_fields(case, answer, where)
