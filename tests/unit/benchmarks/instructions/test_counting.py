"""What the numbers hold for, and what is said where nothing can be counted."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.instructions import __main__ as program
from benchmarks.instructions import counting
from benchmarks.instructions.counting import CountError, Environment, Missing, NotCompiled, count, parse_compiler
from benchmarks.instructions.kinds import KINDS
from benchmarks.instructions.verdict import from_json

HERE = Environment("3.11.7", "GCC 12.2.0, plain", "GCC 12.2.0", "x86_64", "glibc 2.36", "0.9.0")
PART = """\
desc: Trigger: Client Request: {kind}
events: Ir
ob=(1) /usr/lib/libpython3.11.so.1.0
fn=(1) list_dealloc
0 {cost}
"""


class Valgrind:
    """Stands for cc and valgrind. `parts`: what callgrind writes; a status other than 0 is what both end with."""

    def __init__(self) -> None:
        self.status = 0
        self.stderr = ""
        self.parts = [PART.format(kind=kind, cost=400 * 1000) for kind in KINDS]

    def run(self, argv: list[str], **options: object) -> SimpleNamespace:
        out = [word.partition("=")[2] for word in argv if word.startswith("--callgrind-out-file=")]
        for number, text in enumerate(self.parts if out else []):
            Path(f"{out[0]}.{number}").write_text(text)
        return SimpleNamespace(returncode=self.status, stdout="", stderr=self.stderr)


@pytest.fixture
def valgrind(monkeypatch: pytest.MonkeyPatch) -> Valgrind:
    made = Valgrind()
    monkeypatch.setattr("benchmarks.instructions.counting.subprocess.run", made.run)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(counting, "read_environment", lambda: HERE)
    return made


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


def test_each_kind_is_counted_per_request(valgrind: Valgrind) -> None:
    valgrind.parts.append(PART.format(kind="", cost=1).replace("Client Request: ", "Program termination"))
    found = count()
    assert tuple(found) == KINDS
    assert {kind: profile.total for kind, profile in found.items()} == dict.fromkeys(KINDS, 1000)


@pytest.mark.parametrize("name", ["valgrind", "a C compiler"])
def test_a_program_that_is_missing_is_named(
    name: str, valgrind: Valgrind, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda word: None if (word == "valgrind") == (name == "valgrind") else "/x")
    with pytest.raises(Missing, match=f"^{name}$"):
        count()
    monkeypatch.setattr(program, "read_environment", lambda: HERE)
    assert program.main([]) == 2
    assert capsys.readouterr().err == f"benchmarks.instructions: {name} is missing; on Debian: make system\n"


def test_a_header_that_is_missing_is_named(valgrind: Valgrind) -> None:
    valgrind.status = 1
    valgrind.stderr = "marks.c:2:10: fatal error: valgrind/callgrind.h: No such file or directory\n"
    with pytest.raises(Missing, match="valgrind's header"):
        count()
    valgrind.stderr = "marks.c:4:1: error: unknown type name 'viod'\n"
    with pytest.raises(CountError, match=r"marks.c does not compile:\nmarks.c:4:1"):
        count()


def test_a_kind_that_valgrind_did_not_count_is_named(valgrind: Valgrind) -> None:
    valgrind.parts = valgrind.parts[:1]
    with pytest.raises(CountError, match=f"wrote nothing about {', '.join(sorted(set(KINDS) - {'real'}))}$"):
        count()


def test_an_interpreted_lbproxy_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(NotCompiled, match="LBPROXY_COMPILE=require make setup"):
        counting.read_environment()
    (tmp_path / "lbproxy__mypyc.cpython-311-x86_64-linux-gnu.so").write_bytes(b"\0GCC: (Debian) 12.2.0\0")
    assert counting.read_environment().compiler == "GCC 12.2.0"


def test_the_program_compares_and_records(
    valgrind: Valgrind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "recorded.json"
    monkeypatch.setattr(program, "RECORDED", place)
    monkeypatch.setattr(program, "read_environment", lambda: HERE)
    assert program.main([]) == 1
    assert capsys.readouterr().out == "nothing is recorded: run `make instructions`\n"
    assert program.main(["--record"]) == 0
    assert from_json(place.read_text()).kinds["real"].total == 1000
    assert program.main([]) == 0
    valgrind.parts[0] = PART.format(kind="real", cost=400 * 1051)
    assert program.main([]) == 1
    said = capsys.readouterr().out
    assert "real: 1,051 instructions per request, 1,000 recorded (+5.1%, 5% allowed)" in said
    assert "+51  list_dealloc [python]: 1,000 to 1,051" in said
    assert program.main(["--record"]) == 0
    assert program.main([]) == 0
