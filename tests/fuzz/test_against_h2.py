"""HTTP/2 beside the libraries `hpack` and `h2`: hypothesis for small counter-examples, a loop for many (see run.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.protocol.h2.decoder import Decoder, HpackError
from lbproxy.protocol.h2.huffman import HuffmanError, decode
from lbproxy.protocol.h2.settings import OwnSettings
from tests.fuzz import h2_answers, h2_conversations, h2_heads, run
from tests.support.h2_ends import RecordingEnd, begun

SEED = 2
COUNTS = {
    "hpack in": 400, "hpack odd": 400, "hpack out": 150, "h2 downgrade": 4_000, "h2 through": 20, "h2 answers": 150,
    "h2 talk": 60, "h2 cuts": 150, "h2 cuts up": 150,
}  # fmt: skip


@pytest.mark.parametrize("kind", COUNTS)
def test_many(kind: str, tmp_path: Path) -> None:
    counts, failed = run.fuzz(kind, COUNTS[kind], SEED, tmp_path)
    assert not failed
    assert counts["both accept"] > COUNTS[kind] // 8


@pytest.mark.parametrize("seed", ["ad5107f824b3c4e7", "bac8581842345751"])
def test_an_answer_to_head_is_whole_although_its_stream_does_not_end(seed: str) -> None:
    """And the connection breaks behind it."""
    assert not h2_answers.check_answers(bytes.fromhex(seed)).ours


@given(st.binary(max_size=120), st.booleans(), st.booleans())
def test_any_octets_at_either_end(octets: bytes, is_server: bool, has_begun: bool) -> None:
    """Nothing is raised; whatever is wrong ends the connection or a stream."""
    end = begun(is_server) if has_begun else RecordingEnd(is_server)
    end.received(octets, 0.0)
    assert end.is_failed == ("failed" in end.words())
    h2_conversations.bounded(end, octets)


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_any_octets_as_blocks(blocks: list[bytes]) -> None:
    decoder = Decoder(20, 1_000, 200)
    for block in blocks:
        try:
            found = decoder.decode(block)
        except HpackError:
            break
        assert sum(field.size + 4 for field in found) <= 1_000
        assert len(found) <= 24
        assert 0 <= decoder.size <= 200


@given(st.binary(max_size=60))
def test_any_octets_as_huffman_code(octets: bytes) -> None:
    try:
        text = decode(octets, 0, len(octets))
    except HuffmanError:
        return
    assert len(text) <= len(octets) * 8 / 5


@given(st.binary(min_size=8, max_size=8))
def test_heads(seed: bytes) -> None:
    h2_heads.check_decoder(seed)
    h2_heads.check_encoder(seed)
    h2_heads.check_any_block(seed)
    h2_heads.check_downgrade(seed)


def test_limits_hold_in_a_storm() -> None:
    """With limits as they are shipped, octets that are wrong end in GOAWAY soon."""
    end = begun(True, OwnSettings())
    end.received(bytes.fromhex("000000bb0000000000") * 2_000, 0.0)
    assert end.is_failed
    assert end.n_output < 200
