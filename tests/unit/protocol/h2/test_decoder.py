"""HPACK, decoded: the examples of RFC 7541, its rules, and the bounds of what a peer can make of a block."""

from __future__ import annotations

import pytest

from lbproxy.protocol.h2.decoder import Decoder, HpackError
from lbproxy.protocol.h2.encoder import integer


def decoder(fields: int = 100, octets: int = 32_768, table: int = 4_096) -> Decoder:
    return Decoder(fields, octets, table)


def pairs(read: Decoder, block: str | bytes) -> list[tuple[bytes, bytes]]:
    octets = bytes.fromhex(block) if isinstance(block, str) else block
    return [(field.name, field.value) for field in read.decode(octets)]


EXAMPLES = {
    "C.3 requests": (
        4_096,
        [
            ("828684410f7777772e6578616d706c652e636f6d", b"", 57),
            ("828684be58086e6f2d6361636865", b"cache-control: no-cache", 110),
            ("828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565", b"custom-key: custom-value", 164),
        ],
    ),
    "C.4 requests with Huffman's code": (
        4_096,
        [
            ("828684418cf1e3c2e5f23a6ba0ab90f4ff", b"", 57),
            ("828684be5886a8eb10649cbf", b"cache-control: no-cache", 110),
            ("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", b"custom-key: custom-value", 164),
        ],
    ),
    "C.6 answers in a table of 256 octets": (
        256,
        [
            (
                "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff"
                "6e919d29ad171863c78f0b97c8e9ae82ae43d3",
                b"location: https://www.example.com",
                222,
            ),
            ("4883640effc1c0bf", b"location: https://www.example.com", 222),
            (
                "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960"
                "d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
                b"set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
                215,
            ),
        ],
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_of_appendix_c(name: str) -> None:
    table, blocks = EXAMPLES[name]
    read = decoder(table=table)
    for block, last, size in blocks:
        found = pairs(read, block)
        if last:
            assert b": ".join(found[-1]) == last
        else:
            assert found[-1] == (b":authority", b"www.example.com")
        assert read.size == size
        assert not read.excess


def test_examples_of_single_fields() -> None:
    """Appendix C.2: stored, not stored, never stored."""
    read = decoder()
    assert pairs(read, "400a637573746f6d2d6b65790d637573746f6d2d686561646572") == [(b"custom-key", b"custom-header")]
    assert read.size == 55
    read = decoder()
    assert pairs(read, "040c2f73616d706c652f70617468") == [(b":path", b"/sample/path")]
    found = read.decode(bytes.fromhex("100870617373776f726406736563726574"))
    assert (found[0].name, found[0].value, found[0].is_secret) == (b"password", b"secret", True)
    assert pairs(read, "82") == [(b":method", b"GET")]
    assert read.size == 0


@pytest.mark.parametrize(
    ("block", "why"),
    [
        ("80", "beyond the table"),
        ("be", "beyond the table"),
        ("ff80808080808001", "too large"),
        ("ffffffffff7f", "beyond the table"),
        ("7f", "ends within"),
        ("40", "ends within"),
        ("4003", "longer than"),
        ("400361", "longer than"),
        ("40016105", "longer than"),
        ("400161", "ends within"),
        ("4001617f", "ends within"),
        ("0f", "ends within"),
        ("7e0161", "beyond the table"),
        ("3fe21f", "above SETTINGS_HEADER_TABLE_SIZE"),
        ("8220", "within a block"),
        ("202020", "more than twice"),
        ("400161" + "81ff", "padding"),
        ("3f", "ends within"),
    ],
)
def test_blocks_that_are_none(block: str, why: str) -> None:
    with pytest.raises(HpackError, match=why):
        decoder().decode(bytes.fromhex(block))


def test_the_size_of_the_table_can_change_before_a_block() -> None:
    """Section 4.2 and 6.3: the smallest, and the last."""
    read = decoder()
    read.decode(b"\x40\x01a\x01b")
    assert read.size == 34
    assert pairs(read, b"\x20" + integer(4_096, 0x1F, 0x20) + b"\x82") == [(b":method", b"GET")]
    assert read.size == 0
    read.decode(integer(67, 0x1F, 0x20) + b"\x40\x01a\x01b\x40\x01c\x01d")
    assert pairs(read, "be") == [(b"c", b"d")]
    with pytest.raises(HpackError):
        read.decode(b"\xbf")


def test_an_entry_larger_than_the_table_empties_it() -> None:
    """Section 4.4: and is no error."""
    read = decoder()
    read.decode(b"\x40\x01a\x01b")
    assert pairs(read, b"\x40\x01a" + integer(4_096, 0x7F, 0) + bytes(4_096))[0][0] == b"a"
    assert read.size == 0


def test_a_name_may_be_that_of_an_entry_that_this_field_drives_out() -> None:
    """Section 4.4."""
    read = decoder(table=64)
    read.decode(b"\x40\x04name\x10" + b"x" * 16)
    assert pairs(read, b"\x7e\x10" + b"y" * 16) == [(b"name", b"y" * 16)]
    assert pairs(read, "be") == [(b"name", b"y" * 16)]


def test_the_table_holds_as_many_entries_as_fit() -> None:
    """Of 32 octets and more each; those that leave are not kept alive."""
    read = decoder(fields=10_000)
    for number in range(1_000):
        read.decode(b"\x40\x00\x00" if number % 2 else b"\x40\x01a\x00")
        assert read.size <= 4_096
    assert read._count == 4_096 // 32 - 2
    read.decode(b"\x20")
    assert read._count == read.size == 0
    assert len(set(map(id, read._ring))) == 1


@pytest.mark.parametrize(
    ("count", "excess"), [(104, ""), (105, "more than 100 header fields"), (10_000, "more than 100 header fields")]
)
def test_a_list_has_a_bound_while_it_is_made(count: int, excess: str) -> None:
    """Besides the four fields of a start line. The table follows all the same."""
    read = decoder()
    found = read.decode(b"\x82" * (count - 1) + b"\x40\x01a\x01b")
    assert len(found) == (0 if excess else count)
    assert read.excess == excess
    assert pairs(read, "be") == [(b"a", b"b")]
    assert not read.excess


def test_octets_count_as_lines_of_http_1() -> None:
    read = decoder(octets=30)
    assert len(read.decode(b"\x40\x01a\x01b" + b"\xbe" * 4)) == 5
    assert read.decode(b"\xbe" * 5 + b"\x00\x00\x00") == []
    assert read.excess == "more than 30 bytes of header fields"


def test_hits_are_counted_and_the_version_tells_of_changes() -> None:
    read = decoder()
    version = read.version
    read.decode(b"\x82\x86\x00\x01a\x01b")
    assert (read.n_hits, read.n_made, read.version) == (2, 1, version)
    read.decode(b"\x40\x01a\x01b")
    assert read.version != version
    version = read.version
    read.decode(b"\x20")
    assert read.version != version


def test_a_bad_field_is_no_error_of_the_table() -> None:
    """It is a message that is wrong, and not the connection."""
    read = decoder()
    assert read.decode(b"\x40\x01A\x01b")[0].why
    assert read.decode(b"\xbe")[0].why
