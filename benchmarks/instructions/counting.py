"""Run the trace under valgrind, and say what the numbers hold for.

What would make them differ from run to run, or with the processor, is fixed: the seed of hashes, and which variants of
its string functions the C library takes. Modules are imported before callgrind counts, which is ten times as quick.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.instructions import profile
from benchmarks.instructions.kinds import COUNTED, KINDS
from benchmarks.instructions.profile import Profile

_ROOT: Final = Path(__file__).resolve().parents[2]
_LIMIT_S: Final = 300.0
# The C library then takes the string functions that every x86-64 processor can run; others do not know these names.
_PLAIN: Final = ("AVX", "AVX2", "AVX_Fast_Unaligned_Load", "BMI2", "ERMS", "FSRM", "RTM", "SSE4_1", "SSE4_2", "SSSE3")
_ENVIRON: Final = {
    "PATH": os.environ.get("PATH", os.defpath),
    "LC_ALL": "C",
    "PYTHONHASHSEED": "0",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=" + ",".join(f"-{name}" for name in _PLAIN),
}
_COMPILER: Final = re.compile(rb"(GCC): \([^\0)]*\) ([\d.]+)|(clang) version ([\d.]+)")


class CountError(Exception):
    """Nothing was counted; the text says why and what to do."""


class Missing(CountError):
    """A program that counting needs is not there; the text is its name."""


class NotCompiled(CountError):
    """The installed lbproxy is interpreted, which is another program to count."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What decides how many instructions the same sources need.

    python and python_build: of the interpreter. compiler: of lbproxy's modules. machine: the kind of processor.
    """

    python: str
    python_build: str
    compiler: str
    machine: str
    libc: str
    httptools: str


def read_environment() -> Environment:
    """Of this interpreter and the lbproxy installed for it. Raises NotCompiled."""
    place = Path(sysconfig.get_path("platlib"))
    modules = sorted(place.glob("lbproxy__mypyc*.so"))
    if not modules:
        raise NotCompiled(f"the lbproxy in {place} is not compiled: LBPROXY_COMPILE=require make setup")
    options = str(sysconfig.get_config_var("CONFIG_ARGS"))
    build = "optimized" if "--enable-optimizations" in options else "plain"
    return Environment(
        python=platform.python_version(),
        python_build=f"{platform.python_compiler()}, {build}",
        compiler=parse_compiler(modules[0].read_bytes()),
        machine=platform.machine(),
        libc=" ".join(platform.libc_ver()),
        httptools=importlib.metadata.version("httptools"),
    )


def parse_compiler(module: bytes) -> str:
    """From what the compiler left in the file's .comment: `GCC 12.2.0`; "unknown" if nothing."""
    found = _COMPILER.search(module)
    return b" ".join(word for word in found.groups() if word).decode("ascii") if found else "unknown"


def count() -> dict[str, Profile]:
    """Instructions per request of each kind, through the lbproxy that is installed for this interpreter.

    Takes ten seconds of one processor. Raises CountError.
    """
    read_environment()
    valgrind, compiler = shutil.which("valgrind"), shutil.which("cc") or shutil.which("gcc")
    if valgrind is None or compiler is None:
        raise Missing("valgrind" if valgrind is None else "a C compiler")
    with tempfile.TemporaryDirectory(prefix="lbproxy-instructions-") as name:
        folder = Path(name)
        marks = _compile_marks(compiler, folder)
        out = folder / "callgrind"
        options = ["--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        trace = [sys.executable, "-P", str(_ROOT / "benchmarks/installed.py"), "benchmarks.instructions.trace"]
        done = subprocess.run(
            [valgrind, *options, *trace, str(marks)],
            env=_ENVIRON,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
        if done.returncode:
            last = "\n".join(done.stderr.splitlines()[-15:])
            raise CountError(f"valgrind ended with status {done.returncode}; the last that it said:\n{last}")
        parts = [path.read_text(errors="replace") for path in sorted(folder.glob(f"{out.name}*"))]
    found = {profile.part_of(text): profile.per_request(profile.parse(text), COUNTED) for text in parts}
    if lacking := set(KINDS) - set(found):
        raise CountError(f"valgrind wrote nothing about {', '.join(sorted(lacking))}")
    return {kind: found[kind] for kind in KINDS}


def _compile_marks(compiler: str, folder: Path) -> Path:
    made = folder / "marks.so"
    source = Path(__file__).with_name("marks.c")
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(source)],
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    if done.returncode:
        if "valgrind/callgrind.h" in done.stderr:
            raise Missing("valgrind's header (valgrind/callgrind.h)")
        raise CountError(f"{source.name} does not compile:\n{done.stderr.strip()}")
    return made
