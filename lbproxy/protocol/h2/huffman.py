"""The Huffman code of RFC 7541 section 5.2 and appendix B, decoded four bits at a time.

The code is canonical: with the lengths alone the codes follow, the shorter before the longer and equal lengths in the
order of the symbols. A state is a node of the tree that is no leaf. There are 256 of these, so that a state fits into
an octet and the tables are octets, too. No code is shorter than 5 bits: four bits complete one symbol at most.
"""

from __future__ import annotations

from typing import Final

from lbproxy.compiling import huffman_text, i64

# Lengths in bits, by symbol: an octet, or EOS, the last.
_LENGTHS: Final = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b080606060505"
    "050606060606060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e060f050605"
    "06050606060507070606060506070605050607070707070f0b0e0d1c14161414161616171617171717171817181816171817"
    "1717171516171617171816151416161717151716161815161717151516151716171714161616171616171a1a141316171619"
    "1a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c"
    "1b1b1b1b1b1a1e"
)
_EOS: Final = 256
_MAX_PADDING: Final = 7
_SYMBOL: Final = 1
_FAILS: Final = 2


class HuffmanError(Exception):
    """Octets that are no Huffman code: EOS in them, or padding that is longer than 7 bits or not all ones."""


def _leaves() -> dict[tuple[int, int], int]:
    """(length, code) -> symbol."""
    found: dict[tuple[int, int], int] = {}
    code = 0
    before = 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(_LENGTHS)):
        code <<= length - before
        found[length, code] = symbol
        code += 1
        before = length
    return found


def _tables() -> tuple[bytes, bytes, bytes, bytes]:
    """What comes next, what happens and which symbol it is, by state * 16 + four bits; states that may be the last."""
    leaves = _leaves()
    states = {(0, 0): 0}
    for length, code in leaves:
        for up in range(1, length):
            states.setdefault((length - up, code >> up), len(states))
    following, happens, symbols = bytearray(4096), bytearray(4096), bytearray(4096)
    for (length, code), state in states.items():
        for bits in range(16):
            at, place = (length, code), state * 16 + bits
            for bit in (bits >> 3, bits >> 2 & 1, bits >> 1 & 1, bits & 1):
                at = (at[0] + 1, at[1] << 1 | bit)
                symbol = leaves.get(at)
                if symbol is None:
                    continue
                at = (0, 0)
                if symbol == _EOS:
                    happens[place] = _FAILS
                    break
                happens[place], symbols[place] = _SYMBOL, symbol
            following[place] = states[at]
    last = bytearray(256)
    for (length, code), state in states.items():
        last[state] = length <= _MAX_PADDING and code == (1 << length) - 1
    return bytes(following), bytes(happens), bytes(symbols), bytes(last)


_TABLES: Final = b"".join(_tables())


def decode(data: bytes, start: i64, end: i64) -> bytes:
    """The text that `data[start:end]` encodes, at most 8/5 as long. Raises HuffmanError."""
    try:
        return huffman_text(data, start, end, _TABLES)
    except ValueError as error:
        raise HuffmanError(str(error)) from error
