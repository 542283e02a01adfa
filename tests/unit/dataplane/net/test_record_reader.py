"""Stands in for the owner: what it reads and hears is handed on, and a small read gives the connection back."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from lbproxy.dataplane.net.record_reader import SIZE, RecordReader
from lbproxy.dataplane.net.tls_transport import PIECE

KIB = 1024


class Raw:
    def __init__(self) -> None:
        self.is_closed = False
        self.protocol: object = None

    def is_closing(self) -> bool:
        return self.is_closed

    def set_protocol(self, protocol: object) -> None:
        self.protocol = protocol


class Owner:
    def __init__(self) -> None:
        self.data = b""
        self.events: list[str] = []

    def records_received(self, data: memoryview) -> None:
        self.data += data

    def eof_received(self) -> bool:
        self.events.append("eof")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append(f"lost {exc}")

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def raw() -> Raw:
    return Raw()


@pytest.fixture
def reader(owner: Owner, raw: Raw) -> RecordReader:
    return RecordReader(owner, cast(asyncio.Transport, raw))


def read(reader: RecordReader, data: bytes) -> None:
    reader.get_buffer(-1)[: len(data)] = data
    reader.buffer_updated(len(data))


def test_a_read_fits_what_openssl_is_given_at_once(reader: RecordReader) -> None:
    assert len(reader.get_buffer(-1)) == SIZE == PIECE


def test_it_goes_on_while_reads_are_large(reader: RecordReader, owner: Owner, raw: Raw) -> None:
    for byte in b"abc":
        read(reader, bytes([byte]) * 20 * KIB)
    assert owner.data == b"a" * 20 * KIB + b"b" * 20 * KIB + b"c" * 20 * KIB
    assert raw.protocol is None


def test_a_small_read_is_the_last_one(reader: RecordReader, owner: Owner, raw: Raw) -> None:
    read(reader, b"end")
    assert owner.data == b"end"
    assert raw.protocol is owner


def test_a_connection_that_ends_keeps_its_protocol(reader: RecordReader, owner: Owner, raw: Raw) -> None:
    raw.is_closed = True
    read(reader, b"end")
    assert raw.protocol is None
    assert owner.data == b"end"


def test_what_else_happens_is_passed_on(reader: RecordReader, owner: Owner) -> None:
    assert reader.eof_received()
    reader.pause_writing()
    reader.resume_writing()
    reader.connection_lost(None)
    assert owner.events == ["eof", "pause", "resume", "lost None"]
