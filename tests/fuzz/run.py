"""Many heads and bodies against h11, hpack and h2, in one plain loop: `python -m tests.fuzz.run --count 1000000`.

Hypothesis shrinks well and is slow; this is the other half. The seed and the counts are printed, and every input on
which the two disagree is kept in tests/fuzz/failures/, where `make test` tries it again.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.fuzz import answers, forwarded, generate, h2_answers, h2_conversations, h2_heads, h2_through, oracle
from tests.fuzz.oracle import Verdict

FAILURES = Path(__file__).parent / "failures"
MOST_FAILURES = 20


def try_request(data: bytes) -> Verdict:
    at = len(data) // 3
    oracle.check_cuts(data, (at, 2 * at, len(data) - 2))
    forwarded.check_forward(data)
    return oracle.check_request(data)


def try_chunked(data: bytes) -> Verdict:
    """The pieces follow from the data, so that a kept failure is the data alone."""
    rng = random.Random(hashlib.blake2b(data, digest_size=8).digest())
    return oracle.check_chunked(generate.pieces(rng, data))


KINDS: dict[str, tuple[Callable[[random.Random], bytes], Callable[[bytes], Verdict], float]] = {
    "request": (generate.request_head, try_request, 0.8),
    "response": (generate.response_head, oracle.check_response, 0.2),
    "chunked": (generate.chunked_body, try_chunked, 0.2),
    "answer": (answers.stream, answers.check_answer, 0.02),
    "lenient": (answers.stream, answers.check_lenient, 0.02),
    "hpack in": (h2_heads.seed, h2_heads.check_decoder, 0.01),
    "hpack odd": (h2_heads.seed, h2_heads.check_any_block, 0.01),
    "hpack out": (h2_heads.seed, h2_heads.check_encoder, 0.01),
    "h2 downgrade": (h2_heads.seed, h2_heads.check_downgrade, 1.0),
    "h2 through": (h2_heads.seed, h2_through.check_through, 1.0 / h2_through.LISTS),
    "h2 answers": (h2_heads.seed, h2_answers.check_answers, 0.002),
    "h2 cuts up": (h2_heads.seed, h2_answers.check_cuts, 0.01),
    "h2 talk": (h2_heads.seed, h2_conversations.check_conversation, 0.002),
    "h2 cuts": (h2_heads.seed, h2_conversations.check_cuts, 0.01),
    "memo": (forwarded.heads_sequence, forwarded.check_memo, 0.01),
}


def fuzz(kind: str, count: int, seed: int, folder: Path) -> tuple[dict[str, int], int]:
    """Try so many inputs of a kind; the counts by verdict, and how many disagreed. Failures go into the folder."""
    make, check, _ = KINDS[kind]
    rng = random.Random(f"{seed} {kind}")
    counts = {"both accept": 0, "only h11 accepts": 0, "both refuse": 0}
    failed = 0
    for _ in range(count):
        data = make(rng)
        try:
            verdict = check(data)
        except Exception as error:  # also a crash of a parser is a finding
            failed += 1
            keep(folder, kind, data, error)
            if failed >= MOST_FAILURES:
                break
            continue
        if verdict.ours:
            counts["both accept"] += 1
        else:
            counts["only h11 accepts" if verdict.theirs else "both refuse"] += 1
    return counts, failed


def keep(folder: Path, kind: str, data: bytes, error: Exception) -> None:
    """Write the input and say what was wrong."""
    folder.mkdir(exist_ok=True)
    name = f"{kind}-{hashlib.blake2b(data, digest_size=6).hexdigest()}"
    (folder / name).write_bytes(data)
    print(f"{folder / name}: {type(error).__name__}: {error}"[:2000], file=sys.stderr)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--count", type=int, default=1_000_000, help="heads; a fifth as many chunked bodies come on top"
    )
    parser.add_argument("--seed", type=int, default=None, help="default: from the clock")
    parser.add_argument("--kind", choices=tuple(KINDS), action="append", help="only this one; may be given again")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000_000
    print(f"seed {seed}, {options.count} heads", flush=True)
    failures = 0
    for kind in options.kind or KINDS:
        share = KINDS[kind][2]
        started = time.monotonic()
        counts, failed = fuzz(kind, round(options.count * share), seed, FAILURES)
        said = ", ".join(f"{number} {what}" for what, number in counts.items())
        print(
            f"{kind}: {sum(counts.values()) + failed} in {time.monotonic() - started:.0f} s: {said}, {failed} disagree",
            flush=True,
        )
        failures += failed
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
