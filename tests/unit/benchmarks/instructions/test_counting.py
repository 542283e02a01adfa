"""What the numbers hold for."""

from __future__ import annotations

import pytest

from benchmarks.instructions.counting import parse_compiler


@pytest.mark.parametrize(
    ("comment", "compiler"),
    [
        (b"\0GCC: (Debian 12.2.0-14+deb12u1) 12.2.0\0", "GCC 12.2.0"),
        (b"\0GCC: (GNU) 14.1.1 20240701 (Red Hat 14.1.1-7)\0", "GCC 14.1.1"),
        (b"\0Debian clang version 16.0.6 (15~deb12u1)\0", "clang 16.0.6"),
        (b"\0nothing\0", "unknown"),
    ],
)
def test_which_compiler_made_the_modules(comment: bytes, compiler: str) -> None:
    assert parse_compiler(b"\x7fELF" + comment + b".shstrtab\0") == compiler
