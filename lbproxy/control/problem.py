"""Errors of the admin address as application/problem+json (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from lbproxy.control.status import Json
from lbproxy.protocol.status import reason_of

PROBLEM_TYPE: Final = "application/problem+json"


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, more: Json | None = None
) -> web.Response:
    """An answer that says what is wrong. more: further members of the object."""
    text = problem_text(status, detail, more)
    reason = reason_of(status).decode()
    return web.Response(status=status, reason=reason, text=text, content_type=PROBLEM_TYPE, headers=headers)


def problem_text(status: int, detail: str, more: Json | None = None) -> str:
    """Its body."""
    title = reason_of(status).decode()
    return json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail, **(more or {})})
