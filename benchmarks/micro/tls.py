"""What TLS to the client costs per small message in Python: no system call, no loop.

    python -P benchmarks/installed.py benchmarks.micro.tls   (compiled)
    python -m benchmarks.micro.tls [--profile]               (interpreted)

Printed are microseconds of CPU for one record in and one record out (sizes as in the case `tls_small` of
benchmarks.load):

- OpenSSL alone: four calls into the ssl module, the least that any Python program pays;
- one small POST through both protocol objects of lbproxy, in plain text and over TLS: the difference is what TLS adds.

Each message is a turn of the loop, at whose end the transports write. The clients' records are made before the clock
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

from benchmarks.load.targets import make_pem
from benchmarks.micro.hot_path import BODY, CONFIG, HEAD, RESPONSE, build_listener, connect
from lbproxy.config.certificates import client_context, server_context
from lbproxy.dataplane.client.http1 import Http1Connection
from lbproxy.dataplane.client_tls import ClientTlsTransport
from lbproxy.dataplane.exchange.client_facts import ClientFacts
from lbproxy.process.tuning import tune_gc
from lbproxy.telemetry.log_writer import LogWriter

REQUEST = HEAD + b"\r\n" + BODY
ANSWER = b"y" * 200
N = 5_000
ROUNDS = 15
READ = 16 * 1024

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


class Variant:
    """Something that is given one record, or one piece of plain text, after the other."""

    def __init__(
        self,
        name: str,
        client: Client | None,
        deliver: Deliver,
        flush: Callable[[], None] = lambda: None,
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
        for piece in pieces:
            deliver(piece)
        self.best_us = min(self.best_us, (time.process_time() - started) / N * 1e6)
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


def small_post(loop: asyncio.AbstractEventLoop, pem: Path | None) -> tuple[Variant, LogWriter]:
    tls = f", tls: {{cert: '{pem}', key: '{pem}'}}" if pem else ""
    listener, upstream, writer = build_listener(loop, CONFIG.replace("pool: predict}", f"pool: predict{tls}}}"))
    services, client = listener.services, None
    end_turn = services.poller.turn_end.flush
    if listener.runtime.tls is None:
        connection = Http1Connection(listener, ClientFacts(listener.runtime))
        connect(services, connection)
        deliver = connection.data_received
    else:
        server, client = ClientTlsTransport(listener, listener.runtime.tls), Client()
        quiet = connect(services, server)
        deliver = server.data_received

        def take() -> bytes:
            end_turn()
            return quiet.take()

        quiet.is_keeping = True
        client.shake(deliver, take)
        quiet.is_keeping = False

    def exchange(data: bytes) -> None:
        deliver(data)
        end_turn()  # the request leaves before it is answered
        upstream.data_received(RESPONSE)

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
        variants = [openssl_alone(context), plain, tls]
        measure(variants)
        for variant in variants:
            print(f"{variant.name}: {variant.best_us:.2f} us")
        print(f"what TLS adds: {tls.best_us - plain.best_us:.2f} us")
    for log in (plain_log, tls_log):
        log.close(1.0)


if __name__ == "__main__":
    main()
