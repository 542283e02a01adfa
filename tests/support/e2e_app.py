"""A Flask application for the end-to-end tests: it counts, echoes, and moves big bodies at any speed.

`E2E_EXECUTED` names the file to which POST /work appends one line per request that it executes, before it answers.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator

from flask import Flask, Response, jsonify, request

app = Flask(__name__)

EXECUTED = "E2E_EXECUTED"
BLOCK = hashlib.shake_256(b"lbproxy").digest(64 * 1024)


def blocks(count: int) -> Iterator[bytes]:
    """`count` blocks of 64 KiB, each different, so that a lost, doubled or moved one changes the checksum."""
    for number in range(count):
        yield number.to_bytes(8, "big") + BLOCK[8:]


def port() -> int:
    return int(request.environ["SERVER_PORT"] or 0)


@app.get("/health")
def health() -> Response:
    return jsonify(status="ok")


@app.post("/work")
def work() -> Response:
    """Execute once: append the id in one write, then take as long as the request says."""
    task = request.get_json()
    fd = os.open(os.environ[EXECUTED], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{task['id']} {port()}\n".encode())
    finally:
        os.close(fd)
    time.sleep(task.get("seconds", 0))
    return jsonify(id=task["id"], port=port())


@app.get("/download/<int:count>")
def download(count: int) -> Response:
    """`count` blocks with Content-Length."""
    return Response(blocks(count), headers={"Content-Length": str(count * len(BLOCK))})


@app.post("/upload")
def upload() -> Response:
    """The checksum of the body, which is read with a pause of ?pause= seconds for every MiB, and none of it before the
    file ?until= is there.
    """
    pause, until = float(request.args.get("pause", 0)), request.args.get("until", "")
    deadline = time.monotonic() + 100.0
    while until and not os.path.exists(until) and time.monotonic() < deadline:
        time.sleep(0.01)
    checksum, size = hashlib.sha256(), 0
    while data := request.stream.read(1024 * 1024):
        checksum.update(data)
        size += len(data)
        time.sleep(pause)
    return jsonify(sha256=checksum.hexdigest(), size=size)


@app.route("/", defaults={"path": ""}, methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@app.route("/<path:path>", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def echo(path: str) -> Response:
    """What arrived here, as JSON."""
    answer = jsonify(
        method=request.method,
        target=request.environ.get("RAW_URI"),
        headers=[[name.lower(), value] for name, value in request.headers],
        body=request.get_data(as_text=True),
        port=port(),
        name=os.environ.get("E2E_NAME", ""),
    )
    answer.headers["X-Powered-By"] = "flask"
    return answer
