"""The little HTTP/1.1 that the load and the model servers speak: one message at a time, length known. Pure.

A request is `POST /predict/<id>/<work in microseconds>`.
"""

from __future__ import annotations

import re

BODY = b'{"features": [5.1,3.5,1.4,0.2]}'
ANSWER = b'{"prediction": 0.7312}'
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+) *\r\n", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close *\r\n", re.IGNORECASE)


def request(number: int, work_s: float) -> bytes:
    head = f"POST /predict/{number}/{work_s * 1e6:.0f} HTTP/1.1\r\nHost: model\r\nContent-Length: {len(BODY)}\r\n"
    return head.encode() + b"Content-Type: application/json\r\n\r\n" + BODY


def answer(status: int) -> bytes:
    return f"HTTP/1.1 {status} Said\r\nContent-Length: {len(ANSWER)}\r\n\r\n".encode() + ANSWER


def cut(data: bytes | bytearray) -> tuple[bytes, int] | None:
    """(head, length of the whole message) once all of the first message is there, else None.

    Raises ValueError for a message without a length.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(data[: end + 4])
    found = _LENGTH.search(head)
    if found is None:
        raise ValueError(f"no Content-Length: {head!r}")
    total = end + 4 + int(found[1])
    return (head, total) if len(data) >= total else None


def parse_target(head: bytes) -> tuple[int, float]:
    """(id, work in seconds) of a request."""
    _, _, number, work_us = head.split(b" ", 2)[1].split(b"/")
    return int(number), int(work_us) / 1e6


def parse_status(head: bytes) -> int:
    return int(head.split(b" ", 2)[1])


def is_last(head: bytes) -> bool:
    """The sender closes the connection after this message."""
    return _CLOSE.search(head) is not None
