"""lbproxy and h11 understand the same, or lbproxy refuses: hypothesis for small counter-examples, a loop for many.

`make fuzz` runs both for longer: see run.py.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import answers, forwarded, generate, oracle, run

SEED = 1
COUNTS = {"request": 12_000, "response": 6_000, "chunked": 6_000, "answer": 600, "lenient": 600, "memo": 300}
chance = st.randoms(use_true_random=False)


@given(chance)
def test_request_heads(rng: random.Random) -> None:
    run.try_request(generate.request_head(rng))


@given(chance, st.sampled_from(["drop", "pass", "reject"]))
def test_request_heads_with_underscores(rng: random.Random, underscores: str) -> None:
    oracle.check_request(generate.request_head(rng), underscores=underscores)


@given(st.binary(max_size=80), st.sampled_from([b"GET / HTTP/1.1\r\nHost: a\r\n", b"GET ", b""]))
def test_request_heads_of_any_bytes(data: bytes, start: bytes) -> None:
    run.try_request(generate.cut(start + data))


@given(chance)
def test_sound_request_heads_are_accepted_by_both(rng: random.Random) -> None:
    assert run.try_request(generate.clean_request_head(rng)) == oracle.Verdict(True, True)


@given(chance)
def test_response_heads(rng: random.Random) -> None:
    oracle.check_response(generate.response_head(rng))


@given(st.binary(max_size=80), st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 ", b""]))
def test_response_heads_of_any_bytes(data: bytes, start: bytes) -> None:
    oracle.check_response(generate.cut(start + data))


@given(chance)
def test_chunked_bodies(rng: random.Random) -> None:
    oracle.check_chunked(generate.pieces(rng, generate.chunked_body(rng)))


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_chunked_bodies_of_any_bytes(pieces: list[bytes]) -> None:
    oracle.check_chunked(pieces)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), chance)
def test_sound_chunked_bodies_are_accepted_by_both(payloads: list[bytes], rng: random.Random) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(payload), payload) for payload in payloads) + b"0\r\n\r\n"
    assert oracle.check_chunked(generate.pieces(rng, data)) == oracle.Verdict(True, True)
    assert oracle.ours([data]).payload == b"".join(payloads)


@given(chance)
def test_sound_answers_reach_the_client_as_they_are(rng: random.Random) -> None:
    data = answers.clean_stream(rng)
    for is_lenient in (False, True):
        assert answers.check_answer(data, is_lenient=is_lenient) == oracle.Verdict(True, True)


@given(chance)
def test_the_memo_of_heads_changes_nothing(rng: random.Random) -> None:
    forwarded.check_memo(forwarded.heads_sequence(rng))


@pytest.mark.parametrize("kind", COUNTS)
def test_many(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts, failed = run.fuzz(kind, COUNTS[kind], SEED, tmp_path)
    assert not failed, capsys.readouterr().err
    # A generator that makes nothing but rubbish, or nothing but good heads, proves nothing.
    assert counts["both accept"] > COUNTS[kind] // 4
    if kind != "memo":  # its heads are sound: what it compares is two ways of reading them
        assert counts["both refuse"] > COUNTS[kind] // 4


# --- the oracle itself: it must notice ---


@pytest.mark.parametrize(
    ("ours", "h11_sees"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: b\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nForwarded: for=b\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nB: 2\r\nA: 1\r\n\r\n"),
    ],
)
def test_the_oracle_sees_a_difference(ours: bytes, h11_sees: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle.check_request(ours)
    read = oracle._h11_request
    monkeypatch.setattr(oracle, "_h11_request", lambda raw: read(h11_sees))
    with pytest.raises(oracle.Disagreement):
        oracle.check_request(ours)


def test_the_oracle_sees_a_body_that_ends_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    read = oracle.theirs
    oracle.check_chunked([b"1\r\nx\r\n0\r\n\r\n0\r\n\r\n"])
    monkeypatch.setattr(oracle, "theirs", lambda data: read(data[7:]))
    with pytest.raises(oracle.Disagreement):
        oracle.check_chunked([b"1\r\nx\r\n0\r\n\r\n0\r\n\r\n"])


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellO",
        b"HTTP/1.1 404 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 103 Hint\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhello",
    ],
)
def test_the_oracle_sees_an_answer_that_is_another(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    answers.check_answer(data)
    theirs, _ = answers.read(sent, b"GET", is_ended=False)
    got, _ = answers.read(data, b"GET", is_ended=False)
    with pytest.raises(oracle.Disagreement):
        answers._compare(data, got, theirs)


def test_data_that_looks_like_an_extension_is_data() -> None:
    assert oracle.check_chunked([b"5 ;a\r\n05 ;a\r\n0\r\n\r\n"]) == oracle.Verdict(True, False)


def test_what_once_disagreed_agrees_now() -> None:
    kept = sorted(run.FAILURES.iterdir())
    assert kept
    for path in kept:
        kind = path.name.rpartition("-")[0]
        assert isinstance(run.KINDS[kind][1](path.read_bytes()), oracle.Verdict), path


def test_a_failure_is_kept_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(data: bytes) -> oracle.Verdict:
        raise oracle.Disagreement("no")

    monkeypatch.setitem(run.KINDS, "chunked", (lambda rng: b"5\r\n", refuses, 1))
    _, failed = run.fuzz("chunked", 3, SEED, tmp_path / "failures")
    [kept] = (tmp_path / "failures").iterdir()
    assert (failed, kept.read_bytes()) == (3, b"5\r\n")
    assert re.fullmatch(r"chunked-[0-9a-f]{12}", kept.name)
