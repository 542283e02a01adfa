"""One answer of a server, read within bounds: status, fields, the beginning of its body, and whether more may follow.

It is read as leniently as can be understood. Nothing of it goes on to anybody.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

LIMIT_BYTES: Final = 65_536  # of a head, and of what is kept of a body
_LINE_BYTES: Final = 1024  # of a chunk's size
_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_STATUS: Final = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: .*)?\r?")
_SIZE: Final = re.compile(rb"\s*([0-9A-Fa-f]{1,8})\s*(?:;.*)?")


class BadAnswer(Exception):
    """What came is no answer. The text is a sentence without a subject."""


@dataclass(frozen=True, slots=True)
class Reply:
    """fields: names in lower case. body: its first 64 KiB. is_kept: the server leaves the connection open."""

    status: int
    fields: Mapping[str, str]
    body: bytes
    is_kept: bool

    def object(self) -> Mapping[str, object]:
        """The JSON object in the body, empty if it is something else."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


class Reader:
    """Takes what arrives; `reply` is the answer as soon as it is complete."""

    def __init__(self, method: str = "GET") -> None:
        self._method = method
        self._buffer = b""
        self._status = 0
        self._fields: dict[str, str] = {}
        self._body = bytearray()
        self._left = 0  # of the body, or of a chunk
        self._is_chunked = False
        self._is_until_close = False
        self._is_kept = True
        self._in_trailers = False
        self.reply: Reply | None = None

    def feed(self, data: bytes) -> None:
        """Raises BadAnswer. What comes behind the answer is left out."""
        self._buffer += data
        while not self._status and self.reply is None:
            if not self._take_head():
                return
        if self._is_chunked:
            self._take_chunks()
        else:
            self._take_body()

    def end(self) -> None:
        """Nothing more comes. Raises BadAnswer if the answer is not whole."""
        if self.reply is None:
            if not self._status:
                raise BadAnswer(
                    "closed the connection unanswered" if not self._buffer else "closed it within an answer"
                )
            if not self._is_until_close:
                raise BadAnswer("closed the connection in the middle of an answer")
            self._finish()

    def _take_head(self) -> bool:
        found = _HEAD_END.search(self._buffer)
        if found is None:
            if len(self._buffer) > LIMIT_BYTES:
                raise BadAnswer(f"sent a head of more than {LIMIT_BYTES} bytes")
            if b"\n" in self._buffer and not _STATUS.fullmatch(self._buffer.partition(b"\n")[0]):
                raise BadAnswer(f"sent no HTTP/1 answer but {self._quoted()}")
            return False
        lines = self._buffer[: found.start()].split(b"\n")
        status = _STATUS.fullmatch(lines[0])
        if status is None:
            raise BadAnswer(f"sent no HTTP/1 answer but {self._quoted()}")
        self._buffer = self._buffer[found.end() :]
        code = int(status[2])
        if code < 200 and code != 101:
            return True
        self._status = code
        for line in lines[1:]:
            name, _, value = line.decode("latin-1").partition(":")
            self._fields.setdefault(name.strip().lower(), value.strip())
        self._begin_body(is_old=status[1] == b"0")
        return True

    def _begin_body(self, *, is_old: bool) -> None:
        connection = self._fields.get("connection", "").lower()
        self._is_kept = "keep-alive" in connection if is_old else "close" not in connection
        length = self._fields.get("content-length", "")
        if self._method == "HEAD" or self._status in (101, 204, 304):
            self._left = 0
        elif "chunked" in self._fields.get("transfer-encoding", "").lower():
            self._is_chunked = True
        elif length.isascii() and length.isdigit() and len(length) < 19:
            self._left = int(length)
        else:
            self._is_until_close, self._is_kept = True, False

    def _take(self, count: int) -> None:
        """So many bytes of the body, which are there."""
        self._body += self._buffer[: min(count, LIMIT_BYTES - len(self._body))]
        self._buffer = self._buffer[count:]

    def _take_body(self) -> None:
        if self._is_until_close:
            self._take(len(self._buffer))
            return
        count = min(self._left, len(self._buffer))
        self._take(count)
        self._left -= count
        if self._left == 0:
            self._finish()

    def _take_chunks(self) -> None:
        while self.reply is None and self._buffer:
            if self._left:
                count = min(self._left, len(self._buffer))
                self._take(count)
                self._left -= count
                continue
            line, newline, rest = self._buffer.partition(b"\n")
            if not newline:
                if len(line) > _LINE_BYTES:
                    raise BadAnswer("sent a chunk without a size")
                return
            self._buffer, line = rest, line.strip()
            if self._in_trailers:
                if not line:
                    self._finish()
            elif line:  # an empty one ends the chunk before
                size = _SIZE.fullmatch(line)
                if size is None:
                    raise BadAnswer("sent a chunk without a size")
                self._left = int(size[1], 16)
                self._in_trailers = self._left == 0

    def _finish(self) -> None:
        self.reply = Reply(self._status, self._fields, bytes(self._body), self._is_kept)

    def _quoted(self) -> str:
        return repr(self._buffer[:80].partition(b"\n")[0].decode("utf-8", "replace"))
