"""Frames, octet by octet."""

from __future__ import annotations

from lbproxy.protocol.h2 import frames
from lbproxy.protocol.h2.codes import DATA, END_STREAM


def test_each_frame() -> None:
    assert frames.frame_header(0x123, DATA, END_STREAM, 0x7FFFFFFF).hex() == "000123" + "00" + "01" + "7fffffff"
    assert frames.frame_header(16_384, 9, 255, 1).hex() == "004000" + "09" + "ff" + "00000001"
    assert frames.settings([(3, 100), (4, 65_536)]).hex() == "00000c040000000000" + "000300000064" + "000400010000"
    assert frames.settings_ack().hex() == "000000040100000000"
    assert frames.ping(b"12345678", False) == bytes.fromhex("000008060000000000") + b"12345678"
    assert frames.ping(b"12345678", True)[4] == 1
    assert frames.rst_stream(5, 8).hex() == "000004030000000005" + "00000008"
    assert frames.window_update(0, 0x7FFFFFFF).hex() == "000004080000000000" + "7fffffff"
    assert frames.goaway(7, 11, b"why") == bytes.fromhex("00000b070000000000" + "00000007" + "0000000b") + b"why"


def test_headers_of_several_frames() -> None:
    assert frames.long_headers(1, b"abcde", False, 4) == (
        bytes.fromhex("000004010000000001") + b"abcd" + bytes.fromhex("000001090400000001") + b"e"
    )
    assert frames.long_headers(1, b"abcdefgh", True, 4) == (
        bytes.fromhex("000004010100000001") + b"abcd" + bytes.fromhex("000004090400000001") + b"efgh"
    )


def test_the_header_of_a_frame() -> None:
    for size in (0, 1, 511, 512, 513, 16_384, 65_536, (1 << 24) - 1):
        for kind in (0, 3, 9, 255):
            for flags in (0, 1, 4, 5, 255):
                for number in (0, 1, 255, 256, 257, 65_535, 65_536, 0x01020304, 0x7FFFFFFF):
                    header = frames.frame_header(size, kind, flags, number)
                    assert header == size.to_bytes(3, "big") + bytes([kind, flags]) + number.to_bytes(4, "big")
