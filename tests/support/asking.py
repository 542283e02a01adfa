"""Who asks a server, without a request and without a client: it notes what it hears."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from lbproxy.dataplane.exchange.ports import AnswerSink, Endpoint, ServerStream
from lbproxy.dataplane.exchange.prepare import prepare
from lbproxy.dataplane.exchange.prepared import Prepared
from lbproxy.dataplane.runtime import UpstreamTimeouts
from lbproxy.errors import Fault
from lbproxy.protocol.http1 import ResponseHead
from lbproxy.protocol.message import Field
from lbproxy.protocol.proxy_protocol import ProxyHeader
from tests.support.fake_transport import GET, FakeLb

SHARED = b"X-Forwarded-For: 192.0.2.1\r\n"
OWN = b"X-Request-ID: 1\r\n"
LINES = SHARED + OWN


def prepared_by(lb: FakeLb, raw: bytes = GET) -> Prepared:
    """What a listener makes of a head."""
    return prepare(lb.listener.runtime, raw, is_trusted=False, log_format=None, local_host="h")


class Asked(AnswerSink):
    """See the module. stream: what it was given to ask on."""

    def __init__(self) -> None:
        super().__init__(0.0, is_head=False)
        self.heard: list[object] = []
        self.details: list[str] = []  # of failures
        self.trailers: list[Field] = []
        self.stream: ServerStream | None = None
        self.head: ResponseHead | None = None  # of the answer

    def begin(
        self, prepared: Prepared, body: bytes = b"", *, is_done: bool = True, expects: bool = False
    ) -> ServerStream:
        """Send a request on its stream."""
        assert self.stream is not None
        self.stream.begin(self, prepared, SHARED, OWN, body, is_done=is_done, expects=expects, trailers=())
        return self.stream

    # --- the port ---------------------------------------------------------------------------------------------------

    @property
    def is_done(self) -> bool:
        return False

    def dialled(self, connect_s: float) -> None:
        self.heard.append(("dialled", connect_s))

    def opened(self, stream: ServerStream, now: float) -> None:
        self.stream = stream
        self.heard.append("opened")

    def broke(self) -> None:
        self.heard.append("broke")

    def timeouts(self) -> UpstreamTimeouts:
        return UpstreamTimeouts(inf, inf, inf, inf, inf, inf)

    def wants_websocket(self) -> bool:
        return False

    def is_grpc(self) -> bool:
        return False

    def websocket_key(self) -> bytes:
        return b"key"

    def proxied(self) -> ProxyHeader | None:
        return None

    def interim_received(self, head: ResponseHead) -> None:
        self.heard.append(head.status)

    def response_received(
        self, head: ResponseHead, body: bytes, now: float, *, is_done: bool, trailers: Sequence[Field] = ()
    ) -> None:
        self.head = head
        self.heard.append((head.status, body, is_done))
        self.trailers += trailers

    def response_body(self, data: bytes, *, is_done: bool, trailers: Sequence[Field] = ()) -> None:
        self.heard.append((data, is_done))
        self.trailers += trailers

    def attempt_failed(self, fault: Fault, detail: str) -> None:
        self.heard.append(fault.word)
        self.details.append(detail)

    def upstream_blocked(self) -> None:
        self.heard.append("blocked")

    def upstream_unblocked(self) -> None:
        self.heard.append("unblocked")

    def trusts_unacked(self, runtime: object) -> bool:
        return True

    def splice_response(self, reader: object) -> bool:
        return False

    def client_transport(self) -> None:
        return None


class AskingLb(FakeLb):
    """The endpoint of the one server is asked."""

    def ask(self, *, wants_fresh: bool = False) -> Asked:
        endpoint, asked = self.runtimes[0].endpoint, Asked()
        assert isinstance(endpoint, Endpoint)
        endpoint.open(asked, self.services, self.clock(), wants_fresh=wants_fresh)
        self.loop.run()
        return asked
