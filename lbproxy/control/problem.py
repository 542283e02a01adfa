"""Errors of the admin address as application/problem+json (RFC 9457)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web

from lbproxy.control.status import Json


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, more: Json | None = None
) -> web.Response:
    """An answer that says what is wrong. more: further members of the object."""
    title = HTTPStatus(status).phrase
    body = json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail, **(more or {})})
    return web.Response(status=status, text=body, content_type="application/problem+json", headers=headers)
