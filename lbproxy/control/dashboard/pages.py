"""The files of the dashboard, as they go out at `/` and below `/dashboard/`.

They hold no data: what the page shows it asks the API for, with the rights of whoever opened it. So everybody who can
connect gets them, and they may be kept by browsers as long as a question whether they are still the same is answered
(ETag). They are read once: a process goes on serving the files that it began with when a newer version is installed.

The policy allows what comes from this address and nothing else: no script or style inside of the page, no other host,
no frame around it. Names of servers are text from outside; `require-trusted-types-for` makes the browser refuse any
code that would take text for markup.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import ETag, web

FOLDER: Final = Path(__file__).parent / "static"
PAGE: Final = "index.html"
BELOW: Final = "/dashboard/"
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, slots=True)
class File:
    """One of them. etag: without its quotes; the same for the same octets."""

    body: bytes
    content_type: str
    etag: str


class DashboardFiles:
    """All files of a folder, by the path at which they are served."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files = {
            "/" if path.name == PAGE else BELOW + path.name: _read(path)
            for path in sorted(folder.iterdir())
            if path.suffix in TYPES
        }

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(self._files)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The file at the request's path, or 304 if the client has it already."""
        file = self._files[request.path]
        has = request.if_none_match or ()
        if any(tag.value in (file.etag, "*") for tag in has):
            answer = web.Response(status=304, headers=HEADERS)
        else:
            answer = web.Response(body=file.body, headers={**HEADERS, "Content-Type": file.content_type})
        answer.etag = ETag(file.etag)
        return answer


def _read(path: Path) -> File:
    body = path.read_bytes()
    return File(body, TYPES[path.suffix], hashlib.sha256(body).hexdigest()[:20])
