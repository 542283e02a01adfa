"""Requests and answers as an API in production has them, from a seed. Pure.

The same kind of traffic as the case `http_real` of benchmarks.load, which wrk makes in Lua: twelve fields, ids in path
and query, trace and request ids and a session cookie that are new in each request, one of 500 bearer tokens, one of six
clients, bodies of 40 to 300 bytes, answers of varying length and date.
"""

from __future__ import annotations

import random
from typing import Final

_AGENTS: Final = (
    "python-requests/2.32.3",
    "python-httpx/0.28.1",
    "okhttp/4.12.0",
    "Go-http-client/1.1",
    "curl/8.10.1",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
)
_NUMBERS: Final = "5.1," * 80
_LONGEST_NOTE: Final = 48


class Traffic:
    """Two with the same seed make the same requests and answers, in the order in which they are asked for."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._tokens = [f"{self._random.getrandbits(192):048x}" for _ in range(500)]
        self._made = 0

    def request(self) -> bytes:
        """A POST with a head that never came before."""
        draw = self._random
        bits = draw.getrandbits
        self._made += 1
        body = '{"instances": [' + _NUMBERS[: draw.randint(22, 280)] + "0]}"
        note = "n" * draw.randint(0, _LONGEST_NOTE)
        return (
            f"POST /v1/models/iris/users/{bits(32):08x}/predict?request={bits(32):08x}&note={note} HTTP/1.1\r\n"
            f"Host: 127.0.0.1:5000\r\nUser-Agent: {draw.choice(_AGENTS)}\r\nAccept: application/json\r\n"
            "Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-US,en;q=0.9\r\nConnection: keep-alive\r\n"
            f"Authorization: Bearer {draw.choice(self._tokens)}\r\nContent-Type: application/json\r\n"
            f"Cookie: session={bits(64):016x}; theme=dark\r\n"
            f"traceparent: 00-{bits(128):032x}-{bits(64):016x}-01\r\n"
            f"X-Request-ID: {bits(24):06x}-{self._made:08x}-{bits(32):08x}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    def answer(self) -> bytes:
        """A gunicorn's 200. Its date moves on by a second every fifty answers."""
        self._made += 1
        body = '{"prediction": 0.7312, "note": "' + "n" * self._random.randint(0, _LONGEST_NOTE) + '"}'
        minute, second = divmod(self._made // 50 % 3600, 60)
        return (
            f"HTTP/1.1 200 OK\r\nServer: gunicorn\r\nDate: Mon, 23 Nov 2026 00:{minute:02d}:{second:02d} GMT\r\n"
            f"Connection: keep-alive\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()
