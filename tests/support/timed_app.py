"""An application behind real WSGI and ASGI servers, of which `/work` takes WORK_S and everything else no time.

`python -m tests.support.timed_app SERVER FD WORKERS THREADS` serves it on the listening socket FD.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

WORK: Final = "/work"
WORK_S: Final = 0.3
ANSWER: Final = b"done\n"
START_S: Final = 40.0
_ROOT: Final = Path(__file__).resolve().parents[2]


def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if environ["PATH_INFO"] == WORK:
        time.sleep(WORK_S)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(ANSWER)))])
    return [ANSWER]


async def asgi(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    if scope["path"] == WORK:
        await asyncio.sleep(WORK_S)
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(ANSWER))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


def _children(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has ended
        return []


@contextmanager
def served(server: str, workers: int, threads: int, log: Path) -> Iterator[int]:
    """The port of a real server that answers, with all its workers."""
    with socket.socket() as sock, log.open("wb") as output:
        sock.bind(("127.0.0.1", 0))
        sock.listen(128)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.set_inheritable(True)
        words = [server, str(sock.fileno()), str(workers), str(threads)]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.timed_app", *words],
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            pass_fds=[sock.fileno()],
            stdout=output,
            stderr=output,
        )
        port = sock.getsockname()[1]
    try:
        if server.startswith("gunicorn"):
            wait_until(lambda: len(_children(process.pid)) == workers, f"{workers} workers", START_S)
        with socket.create_connection(("127.0.0.1", port), START_S) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            client.settimeout(START_S)
            assert client.recv(1), log.read_text()
        yield port
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def main(server: str, fd: int, workers: str, threads: str) -> None:
    os.set_inheritable(fd, True)
    kind, _, worker_class = server.partition("-")
    if kind == "gunicorn":
        arguments = ["-m", "gunicorn", "--bind", f"fd://{fd}", "--workers", workers, "--log-level", "critical"]
        own = ["--threads", threads] if worker_class == "gthread" else []
        options = ["--worker-class", worker_class, *own, "tests.support.timed_app:wsgi"]
        os.execv(sys.executable, [sys.executable, *arguments, *options])
    elif kind == "uvicorn":
        import uvicorn

        uvicorn.run(cast(Any, asgi), fd=fd, lifespan="off", log_level="critical", ws="none")
    else:
        import waitress

        waitress.serve(wsgi, sockets=[socket.socket(fileno=fd)], threads=int(threads))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
