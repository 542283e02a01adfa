"""A Flask application with a view that a proxy's rule is to protect, behind real servers.

`python -m tests.support.guarded_app SERVER FD` serves it on the listening socket FD. `/admin` and what is below it is
protected, everything else is open; each answer says which of them it was, and how the application saw the path.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import Any, cast
from urllib.parse import quote

import flask

SERVERS = ("werkzeug", "gunicorn", "waitress", "hypercorn", "uvicorn")
app = flask.Flask(__name__)
METHODS = ["GET", "POST", "DELETE", "PURGE"]


def _answer(kind: str) -> flask.Response:
    answer = flask.Response(kind, mimetype="text/plain")
    answer.headers["X-Seen"] = quote(flask.request.path)
    return answer


@app.route("/admin", methods=METHODS, strict_slashes=False)
@app.route("/admin/<path:rest>", methods=METHODS)
def protected(rest: str = "") -> flask.Response:
    return _answer("protected")


@app.route("/", methods=METHODS)
@app.route("/<path:rest>", methods=METHODS)
def open_to_all(rest: str = "") -> flask.Response:
    return _answer("open")


def main(server: str, fd: int) -> None:
    os.set_inheritable(fd, True)
    if server == "gunicorn":
        arguments = ["--bind", f"fd://{fd}", "--worker-class", "gthread", "--threads", "2", "--log-level", "critical"]
        name = "tests.support.guarded_app:app"
        os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *arguments, name])
    elif server == "waitress":
        import waitress

        waitress.serve(app, sockets=[socket.socket(fileno=fd)], threads=2)
    elif server == "hypercorn":
        from hypercorn.asyncio import serve
        from hypercorn.config import Config

        config = Config()
        config.bind = [f"fd://{fd}"]
        asyncio.run(serve(cast(Any, app), config, mode="wsgi"))
    elif server == "uvicorn":
        import uvicorn

        uvicorn.run(cast(Any, app), fd=fd, interface="wsgi", lifespan="off", log_level="critical")
    else:
        from werkzeug.serving import make_server

        sock = socket.socket(fileno=fd)
        make_server("127.0.0.1", sock.getsockname()[1], app, threaded=True, fd=fd).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
