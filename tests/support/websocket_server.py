"""Hypercorn with an application that says which version of HTTP it is asked by, and then what it is told."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from tests.support.programs import Program, started

APP = """
async def app(scope, receive, send):
    if scope["type"] != "websocket":
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})
        return
    await receive()
    if scope["path"].endswith("/refused"):
        await send({"type": "websocket.close"})
        return
    chosen = scope["subprotocols"][0] if scope["subprotocols"] else None
    await send({"type": "websocket.accept", "subprotocol": chosen})
    await send({"type": "websocket.send", "text": scope["http_version"]})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        if event.get("text") == "bye":
            await send({"type": "websocket.close", "code": 4000})
            return
        await send({"type": "websocket.send", "text": event.get("text"), "bytes": event.get("bytes")})
"""


def hypercorn(folder: Path) -> contextlib.AbstractContextManager[tuple[Program, int]]:
    (folder / "echo_app.py").write_text(APP)

    def command(port: int) -> list[str]:
        limit = ["--websocket-ping-interval", "3600"]
        return [sys.executable, "-m", "hypercorn", *limit, "--bind", f"127.0.0.1:{port}", f"{folder}/echo_app.py:app"]

    return started(command, folder, "hypercorn")
