from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from lbproxy.control.discovery.kubernetes import client
from lbproxy.control.discovery.kubernetes.client import Lines, TooLong, seconds, whole


class Body:
    status = 200
    retry_after_s = 0.0

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = chunks

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for chunk in self._chunks:
            yield chunk


def test_lines_come_however_they_are_cut() -> None:
    for size in range(1, 12):
        lines, text = Lines(), b"one\ntwo\n\nthree\nfour"
        cut = [text[at : at + size] for at in range(0, len(text), size)]
        assert [line for part in cut for line in lines.feed(part)] == [b"one", b"two", b"three"]


def test_a_line_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_LINE_BYTES", 8)
    lines = Lines()
    assert list(lines.feed(b"12345678\n12345")) == [b"12345678"]
    assert list(lines.feed(b"678")) == []
    with pytest.raises(TooLong):
        list(lines.feed(b"9"))


async def test_a_body_has_a_bound() -> None:
    assert await whole(Body(b"12", b"34"), 4) == b"1234"
    with pytest.raises(TooLong):
        await whole(Body(b"12", b"345"), 4)


@pytest.mark.parametrize(
    ("field", "value"), [("5", 5.0), ("", 0.0), ("-1", 0.0), ("1e9", 0.0), ("9" * 10, 0.0), ("\u0663", 0.0)]
)
def test_retry_after_is_a_number_of_seconds(field: str, value: float) -> None:
    assert seconds(field) == value
