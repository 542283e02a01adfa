"""What TLS to the client costs per small message in Python: no socket, no loop.

    python -m benchmarks.micro.tls [--profile]

Printed are microseconds of CPU for one record in and one record out (sizes as in the case `tls_small` of
benchmarks.load):

- OpenSSL alone: four calls into the ssl module, the least that any Python program pays;
- the same through TlsTransport, whose application answers at once;
- one small POST through both protocol objects of lbproxy, in plain text and over TLS: the difference is what TLS adds.

Ten messages are a turn of the loop, at whose end TlsTransport writes. The clients' records are made before the clock
starts. The variants are run one after the other, many times, and the best of each counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import cProfile
import pstats
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from benchmarks.load.targets import make_pem
from benchmarks.micro.hot_path import BODY, CONFIG, HEAD, RESPONSE, FakeTransport, build_listener
from lbproxy.config.certificates import client_context, server_context
from lbproxy.dataplane.downstream import Downstream
from lbproxy.dataplane.tls_server import TlsServer
from lbproxy.dataplane.tls_transport import TlsTransport
from lbproxy.process.worker import tune_gc
from lbproxy.telemetry.accesslog import LogWriter

REQUEST = HEAD + b"\r\n" + BODY
ANSWER = b"y" * 200
N = 5_000
ROUNDS = 15
READ = 16 * 1024
TURN = 10

Deliver = Callable[[bytes], None]  # what the raw transport calls for what it has read


class Client:
    """The other end: shakes hands with whatever takes and gives bytes, and makes records."""

    def __init__(self) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = client_context(verify=False, ca=None, cert=None, key=None)
        self._tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")

    def shake(self, deliver: Deliver, take: Callable[[], bytes]) -> None:
        for _ in range(2):  # TLS 1.3: hello, then finished
            with contextlib.suppress(ssl.SSLWantReadError):
                self._tls.do_handshake()
            deliver(self._out.read())
            self._in.write(take())

    def records(self, plaintext: bytes, n: int) -> list[bytes]:
        made = []
        for _ in range(n):
            self._tls.write(plaintext)
            made.append(self._out.read())
        return made


class RawTransport(FakeTransport):
    """Keeps what is written while hands are shaken, and drops it afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = bytearray()
        self.is_keeping = True

    def write(self, data: bytes) -> None:
        if self.is_keeping:
            self.kept += data

    def take(self) -> bytes:
        taken = bytes(self.kept)
        self.kept.clear()
        return taken


def deliverer(protocol: Any) -> Deliver:
    """How a transport hands on what it has read, to either kind of protocol."""
    if not isinstance(protocol, asyncio.BufferedProtocol):
        return cast(Deliver, protocol.data_received)

    def deliver(data: bytes) -> None:
        view = memoryview(protocol.get_buffer(-1))
        view[: len(data)] = data
        protocol.buffer_updated(len(data))

    return deliver


class Variant:
    """Something that is given one record, or one piece of plain text, after the other."""

    def __init__(
        self, name: str, client: Client | None, deliver: Deliver, flush: Callable[[], None] | None = None
    ) -> None:
        self.name = name
        self._client = client
        self._deliver = deliver
        self._flush = flush  # of the log
        self.best_us = float("inf")

    def run(self) -> None:
        pieces: Sequence[bytes] = [REQUEST] * N if self._client is None else self._client.records(REQUEST, N)
        deliver = self._deliver
        started = time.process_time()
        for at in range(0, N, TURN):
            for piece in pieces[at : at + TURN]:
                deliver(piece)
        self.best_us = min(self.best_us, (time.process_time() - started) / N * 1e6)
        if self._flush is not None:
            self._flush()


def openssl_alone(context: ssl.SSLContext) -> Variant:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    take_in, read, write, take_out = incoming.write, tls.read, tls.write, outgoing.read

    def handshake(data: bytes) -> None:
        take_in(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()

    def exchange(data: bytes) -> None:
        take_in(data)
        read(READ)
        write(ANSWER)
        take_out()

    client = Client()
    client.shake(handshake, take_out)
    return Variant("OpenSSL alone", client, exchange)


class Answering(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(ANSWER)


class AnsweringServer(TlsTransport):
    __slots__ = ()

    def _handshake_done(self) -> None:
        self.start(Answering())


def defect(where: str, error: BaseException) -> None:
    raise error


def through_transport(context: ssl.SSLContext, loop: asyncio.AbstractEventLoop) -> Variant:
    server, raw, client = AnsweringServer(loop, defect), RawTransport(), Client()
    server.connection_made(cast(asyncio.BaseTransport, raw))
    server.begin(context, is_server=True)
    client.shake(deliverer(server), raw.take)
    raw.is_keeping = False
    return Variant("TlsTransport", client, deliverer(server))


def small_post(loop: asyncio.AbstractEventLoop, pem: Path | None) -> tuple[Variant, LogWriter]:
    tls = f", tls: {{cert: '{pem}', key: '{pem}'}}" if pem else ""
    listener, upstream, writer = build_listener(loop, CONFIG.replace("pool: predict}", f"pool: predict{tls}}}"))
    raw, client = RawTransport(), None
    if listener.runtime.tls is None:
        downstream = Downstream(listener)
        downstream.connection_made(cast(asyncio.BaseTransport, raw))
        deliver = deliverer(downstream)
    else:
        server, client = TlsServer(listener, listener.runtime.tls), Client()
        server.connection_made(cast(asyncio.BaseTransport, raw))
        deliver = deliverer(server)
        client.shake(deliver, raw.take)
    raw.is_keeping = False
    answer = deliverer(upstream)

    def exchange(data: bytes) -> None:
        deliver(data)
        answer(RESPONSE)

    name = "small POST, plain text" if pem is None else "small POST, TLS"
    return Variant(name, client, exchange, writer.flush_soon), writer


def measure(variants: Sequence[Variant], rounds: int = ROUNDS) -> None:
    for _ in range(rounds):
        for variant in variants:
            variant.run()


def main() -> None:
    loop = asyncio.new_event_loop()
    with tempfile.TemporaryDirectory(prefix="lbproxy-bench-") as directory:
        pem = make_pem(Path(directory, "site.pem"))
        context, _ = server_context(
            str(pem), str(pem), min_version="1.2", alpn=["http/1.1"], client_ca=None, client_verify="off"
        )
        plain, plain_log = small_post(loop, None)
        tls, tls_log = small_post(loop, pem)
    tune_gc()
    if "--profile" in sys.argv:
        profile = cProfile.Profile()
        profile.runcall(tls.run)
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
    else:
        variants = [openssl_alone(context), through_transport(context, loop), plain, tls]
        measure(variants)
        for variant in variants:
            print(f"{variant.name}: {variant.best_us:.2f} us")
        print(f"what TLS adds: {tls.best_us - plain.best_us:.2f} us")
    for log in (plain_log, tls_log):
        log.close(1.0)


if __name__ == "__main__":
    main()
