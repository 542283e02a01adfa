"""An application that writes down each request that it gets, behind real WSGI and ASGI servers.

`python -m tests.support.recording_app SERVER FD FILE` serves it on the listening socket FD and appends one JSON line to
FILE for every request whose body arrived whole. The answer to everything is 200 with the number of bytes in the body.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

SERVERS = (
    "gunicorn-sync",
    "gunicorn-gthread",
    "waitress",
    "werkzeug",
    "uvicorn-h11",
    "uvicorn-httptools",
    "hypercorn",
    "uwsgi",
)
FILE = "RECORDING_FILE"
Message = dict[str, Any]


def record(method: str, path: str, query: str, headers: list[tuple[str, str]], body: bytes) -> None:
    """One line in one write, so that threads do not mix."""
    seen = {
        "method": method,
        "path": path,
        "query": query,
        "headers": headers,
        "body": base64.b64encode(body).decode(),
    }
    fd = os.open(os.environ[FILE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, json.dumps(seen).encode() + b"\n")
    finally:
        os.close(fd)


def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    length = environ.get("CONTENT_LENGTH")
    stream = environ["wsgi.input"]
    if length:
        body = stream.read(int(length))
        if len(body) != int(length):
            raise ConnectionError("the body is shorter than announced")
    elif "uwsgi.version" in environ and "HTTP_TRANSFER_ENCODING" in environ:
        uwsgi: Any = importlib.import_module("uwsgi")  # there is one inside of that server only
        body = b"".join(iter(uwsgi.chunked_read, b""))
    else:
        body = stream.read() if environ.get("wsgi.input_terminated") or "HTTP_TRANSFER_ENCODING" in environ else b""
    headers = [(key[5:].lower().replace("_", "-"), str(value)) for key, value in environ.items() if key[:5] == "HTTP_"]
    record(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("QUERY_STRING", ""), headers, body)
    answer = b"%d\n" % len(body)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [b""] if environ["REQUEST_METHOD"] == "HEAD" else [answer]


class _Slow:
    """An answer after which the application has 5 ms of work left; its connection is open for so long."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    def close(self) -> None:
        time.sleep(0.005)


def slow_to_end(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The same application, with something to do when its answer has left."""
    return _Slow(wsgi(environ, start_response))


async def asgi(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    if scope["type"] != "http":
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
        return
    body, is_more = b"", True
    while is_more:
        message = await receive()
        if message["type"] != "http.request":
            return  # the client left: the request is not whole
        body += message.get("body", b"")
        is_more = message.get("more_body", False)
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    record(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), headers, body)
    answer = b"%d\n" % len(body)
    start = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": start})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer})


def _gunicorn(kind: str, fd: int) -> None:
    options = ["--worker-class", kind, "--threads", "4"] if kind == "gthread" else ["--worker-class", kind]
    arguments = ["-m", "gunicorn", "--bind", f"fd://{fd}", "--workers", "1", "--log-level", "critical", *options]
    os.execv(sys.executable, [sys.executable, *arguments, "tests.support.recording_app:wsgi"])


def _waitress(sock: socket.socket) -> None:
    import waitress

    waitress.serve(wsgi, sockets=[sock], threads=4)


def _werkzeug(sock: socket.socket) -> None:
    from werkzeug.serving import make_server

    make_server("127.0.0.1", sock.getsockname()[1], wsgi, threaded=True, fd=sock.fileno()).serve_forever()


def _uvicorn(parser: str, fd: int) -> None:
    import uvicorn

    chosen = cast(Any, parser)
    uvicorn.run(cast(Any, asgi), fd=fd, http=chosen, lifespan="off", log_level="critical", ws="none")


def _hypercorn(fd: int) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{fd}"]
    asyncio.run(serve(cast(Any, asgi), config))


def uwsgi_command(fd: int, callable_: str) -> list[str]:
    """uWSGI as its users run it behind a proxy that speaks HTTP: it ends each connection and does not say so."""
    return [
        "uwsgi",
        "--plugin=python3",
        f"--http-socket=fd://{fd}",
        "--master",
        "--processes=2",
        "--die-on-term",
        "--need-app",
        "--disable-logging",
        "--buffer-size=65535",  # for the head; 4 KiB else
        f"--pythonpath={Path(__file__).resolve().parents[2]}",
        f"--module={callable_}",
    ]


def main(server: str, fd: int) -> None:
    os.set_inheritable(fd, True)
    kind, _, variant = server.partition("-")
    if kind == "gunicorn":
        _gunicorn(variant, fd)
    elif kind == "uvicorn":
        _uvicorn(variant, fd)
    elif kind == "hypercorn":
        _hypercorn(fd)
    elif kind == "uwsgi":
        os.execvp("uwsgi", uwsgi_command(fd, "tests.support.recording_app:wsgi"))
    elif kind == "waitress":
        _waitress(socket.socket(fileno=fd))
    else:
        _werkzeug(socket.socket(fileno=fd))


if __name__ == "__main__":
    os.environ[FILE] = sys.argv[3]
    main(sys.argv[1], int(sys.argv[2]))
