"""An application behind real WSGI and ASGI servers, of which `/work` takes WORK_S and everything else no time.

`python -m tests.support.timed_app SERVER FD WORKERS THREADS` serves it on the listening socket FD.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

WORK: Final = "/work"
WORK_S: Final = 0.3
ANSWER: Final = b"done\n"


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
