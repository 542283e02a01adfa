"""Compiles the modules that every request runs through to C, with mypyc, when a wheel is built (so by `pip install`).

The sources are ordinary Python and run as they are: an editable install and the unit tests do that. Compiled, the same
code takes half the time (benchmarks/RESULTS.md). LBPROXY_COMPILE says what is wanted: `auto`, the default, compiles,
and makes a wheel of plain Python where that fails (no C compiler); `require` fails then; `no` does not try.

LBPROXY_COMPILE_CACHE names a directory that keeps what was compiled: the same sources are not compiled twice. `make`
uses it, because its tests install lbproxy several times; users need it not.

Run as a program it compiles into a directory: `python hatch_build.py DIRECTORY`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
SCRATCH = "lbproxy-compile-"  # what the directories begin with that a build works in
DEAD_S = 3600.0  # who has just made one holds it in a moment
ROOMS = ("net", "exchange", "client", "server", "tcp")
PACKAGES = (
    "dataplane",
    *(f"dataplane/{room}" for room in ROOMS),
    "domain",
    "domain/shared",
    "domain/strategies",
    "protocol",
    "protocol/h2",
    "telemetry",
)
MODULES = ("address", "errors", "fault", "request_key", "shared/mutex", "tasks")
# Not worth it: set-up only, or only when a person asks.
LEFT_OUT = (
    "telemetry/log.py",
    "telemetry/recent.py",
    "dataplane/tls_settings.py",
    "dataplane/net/unix_socket.py",
    "domain/foresight.py",
    "domain/retry_words.py",
    "domain/route_words.py",
    "domain/standing.py",
)


def compiled_sources() -> list[str]:
    """What is compiled, as paths from the root of the project."""
    package = ROOT / "lbproxy"
    files = [path for name in PACKAGES for path in (package / name).glob("*.py") if path.name != "__init__.py"]
    files += [package / f"{name}.py" for name in MODULES]
    left_out = {package / name for name in LEFT_OUT}
    return sorted(str(path.relative_to(ROOT)) for path in files if path not in left_out)


# Nothing outside calls a compiled function by its C name. Told so, compilers that know these words call it directly, or
# put it in line, instead of through a table that another library could change. And to look for what could be meant
# otherwise takes compilers half of their time; nobody wrote this C.
C_OPTIONS = ("-fvisibility=hidden", "-fno-plt", "-w")

# The words of lbproxy/compiling.py in C, which each compiled module includes, and what mypyc has to know of them: the
# types of their arguments and of what they give, by the names that mypyc has for them, and whether they can fail.
WORDS = ROOT / "lbproxy/compiling.h"
SIGNATURES = {
    "word_at": ("bytes", "int64", "int64", False),
    "value_end": ("bytes", "int64", "int64", False),
    "visible_end": ("bytes", "int64", "int64", False),
    "line_end": ("bytes", "int64", "int64", False),
    "spelling_at": ("bytes", "int64", "bytes", "int64", False),
    "passed": ("bytes", "int64", "bytes", "int64", False),
    "token_at": ("bytes", "int64", "bytes", "int64", False),
    "has_at": ("bytes", "int64", "bytes", "bool", False),
    "has_octet": ("bytes", "int64", "int64", "int64", "bool", False),
    "text_of": ("bytes", "int64", "int64", "str", True),
    "cut": ("bytes", "int64", "int64", "bytes", True),
    "cut_three": ("bytes", *["int64"] * 6, "bytes", True),
    "join_five": (*["bytes"] * 5, "bytes", True),
    "join_seven": (*["bytes"] * 7, "bytes", True),
    "is_clean": ("str", "bool", False),
    "join_three": (*["str"] * 3, "str", True),
    "join_many": (*["str"] * 15, "str", True),
    "id_line": ("bytes", "int64", "bytes", True),
    "length_line": ("int64", "bytes", True),
    "drop_last": ("list", "none", True),
    "add_to": ("list", "int64", "int64", "none", True),
    "read_now": ("int64", "int64", "bytes", True),
    "write_now": ("int64", "bytes", "int64", True),
    "write_last": ("int64", "bytes", "int64", True),
    "events_now": ("object", "int64", "int64", "bytes", True),
    "watch_now": ("object", "int64", "int64", "int64", "int64", False),
    "change_now": ("object", "int64", "int64", "int64", "int64", False),
    "accept_now": ("object", "int64", "object", True),
    "dial_now": ("int64", "bytes", "int64", False),
    "shut_now": ("int64", "int64", False),
    "close_now": ("int64", "int64", False),
    "has_news": ("int64", "bool", False),
    "has_octets": ("int64", "bool", False),
    "load_cell": ("int64", "int64", "int64", False),
    "store_cell": ("int64", "int64", "int64", "int64", False),
    "try_lock": ("int64", "int64", False),
    "unlock": ("int64", "int64", False),
    "frame": ("int64", "int64", "int64", "bytes", "bytes", True),
    "frame_begin": ("int64", "int64", "int64", "int64", "bytes", True),
    "join_four": ("bytes", "bytes", "bytes", "bytes", "bytes", True),
    "spliced": ("bytes", "bytes", *["int64"] * 3, *["bytes"] * 4, True),
    "literal_at": ("bytes", "int64", "int64", False),
    "huffman_text": ("bytes", "int64", "int64", "bytes", "bytes", True),
    "timeout_line": ("int64", "bytes", "bytes", True),
    "hpack_literal": ("bytes", "bytes", "bytes", True),
    "hpack_own": ("bytes", "bytes", True),
}
# A function of the standard library, which has such a word where a compiled module imports it by its name.
MONOTONIC = ("time.monotonic", "lbproxy_monotonic")

# What compiled modules may import, hence what decides about their machine code (imports go one way; pyproject.toml).
LAYERS = (
    "address",
    "compiling",
    "config",
    "dataplane",
    "domain",
    "errors",
    "fault",
    "protocol",
    "request_key",
    "shared",
    "tasks",
    "telemetry",
)


def fingerprint() -> str:
    """Equal for equal sources, tools and interpreters."""
    digest = hashlib.sha256()
    for fact in (sys.version, platform.machine(), importlib.metadata.version("mypy"), *sorted(compiled_sources())):
        digest.update(fact.encode() + b"\0")
    package = ROOT / "lbproxy"
    for path in sorted([Path(__file__), WORDS, package / "__init__.py", *package.rglob("*.py")]):
        if path.parent in (ROOT, package) or path.relative_to(package).parts[0] in LAYERS:
            digest.update(str(path).removeprefix(str(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:32]


class CompileHook(BuildHookInterface[Any]):
    """hatchling calls it for each wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the compiled modules to the wheel, beside their sources."""
        wish = os.environ.get("LBPROXY_COMPILE") or "auto"
        if wish not in ("auto", "require", "no"):
            raise ValueError(f"LBPROXY_COMPILE is {wish!r}; it can be auto, require or no")
        if version == "editable" or wish == "no" or sys.implementation.name != "cpython":
            return
        clear_up(Path(tempfile.gettempdir()))
        self._directory = tempfile.TemporaryDirectory(prefix=SCRATCH)
        target = Path(self._directory.name)
        self._held = hold(target)
        cache = os.environ.get("LBPROXY_COMPILE_CACHE")
        kept = Path(cache, fingerprint()) if cache else None
        if kept is not None and kept.is_dir():
            self._add(kept, build_data)
            return
        done = subprocess.run(
            [sys.executable, __file__, str(target)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            reason = "\n".join(done.stdout.splitlines()[-15:])
            if wish == "require":
                raise RuntimeError(f"compiling lbproxy failed:\n{reason}")
            self.app.display_warning(f"lbproxy is installed without compiled modules, it needs more CPU:\n{reason}")
            return
        if kept is not None:
            keep(target / "out", kept)
        self._add(target / "out", build_data)

    @staticmethod
    def _add(compiled: Path, build_data: dict[str, Any]) -> None:
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        for path in compiled.rglob("*.so"):
            build_data["force_include"][str(path)] = str(path.relative_to(compiled))

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """The wheel is written: what went into it is no longer needed."""
        if hasattr(self, "_directory"):
            self._directory.cleanup()
            if self._held is not None:
                os.close(self._held)


def hold(directory: Path) -> int | None:
    """Lock a directory for as long as this process lives, or the descriptor that is returned is open. None: somebody
    else has it, or there are no such locks."""
    try:
        import fcntl

        held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        return None
    return held


def clear_up(place: Path) -> None:
    """Remove what builds left that were killed: hundreds of megabytes each, which nobody else would."""
    for left in place.glob(SCRATCH + "*"):
        try:
            found = left.lstat()
        except OSError:  # another build was faster
            continue
        if found.st_uid != os.getuid() or time.time() - found.st_mtime < DEAD_S:
            continue
        held = hold(left)
        if held is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(held)


def keep(compiled: Path, place: Path) -> None:
    """Copy to the cache, whole or not at all: others may do the same at this moment. The three youngest stay."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".new-") as new:
        shutil.copytree(compiled, Path(new, "out"))
        try:
            Path(new, "out").rename(place)
        except OSError:
            if not place.is_dir():
                raise
    for old in sorted(place.parent.glob("[0-9a-f]*"), key=lambda path: path.stat().st_mtime)[:-3]:
        shutil.rmtree(old, ignore_errors=True)


def know_words() -> None:
    """Have mypyc call the functions of WORDS where the sources call those of lbproxy/compiling.py."""
    from mypyc.ir import rtypes
    from mypyc.ir.ops import ERR_MAGIC, ERR_MAGIC_OVERLAPPING, ERR_NEVER
    from mypyc.primitives.registry import function_op

    for name, (*types, can_fail) in SIGNATURES.items():
        *taken, given = [getattr(rtypes, f"{kind}_rprimitive") for kind in types]
        failing = ERR_MAGIC_OVERLAPPING if types[-1] == "int64" else ERR_MAGIC
        function_op(
            name=f"lbproxy.compiling.{name}",
            arg_types=taken,
            return_type=given,
            c_function_name=f"lbproxy_{name}",
            error_kind=failing if can_fail else ERR_NEVER,
        )
    function_op(
        name=MONOTONIC[0],
        arg_types=[],
        return_type=rtypes.float_rprimitive,
        c_function_name=MONOTONIC[1],
        error_kind=ERR_NEVER,
    )


def compile_into(target: Path) -> None:
    """Compile to `target`/out. mypyc and distutils print what is wrong and exit.

    Each module becomes a C file of its own, and all processors compile them: one for all took three times as long.
    """
    from mypyc.build import mypycify
    from setuptools import setup

    know_words()
    sources = compiled_sources()
    extensions = mypycify(
        ["--follow-imports=silent", *sources],
        opt_level="2",
        debug_level="0",
        group_name="lbproxy",
        multi_file=True,
        target_dir=str(target / "c"),
    )
    for extension in extensions:
        extension.extra_compile_args = [*extension.extra_compile_args, *C_OPTIONS, "-include", str(WORDS)]
    n_processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    setup(
        name="lbproxy",
        packages=[],
        ext_modules=extensions,
        cmdclass={"build_ext": _build_in_parallel(n_processors)},
        script_args=[
            "build_ext",
            f"--parallel={n_processors}",
            "--build-lib",
            str(target / "out"),
            "--build-temp",
            str(target / "o"),
        ],
    )


def _build_in_parallel(n_processors: int) -> type[Any]:
    """distutils' command, which by itself compiles the files of an extension one after the other."""
    from setuptools.command.build_ext import build_ext

    class BuildInParallel(build_ext):  # type: ignore[misc]  # setuptools has no types
        def build_extension(self, ext: Any) -> None:
            def compiled(source: str) -> list[str]:
                objects: list[str] = self.compiler.compile(
                    [source],
                    output_dir=self.build_temp,
                    include_dirs=ext.include_dirs,
                    extra_postargs=ext.extra_compile_args,
                    depends=ext.depends,
                )
                return objects

            if len(ext.sources) > 1:
                with ThreadPoolExecutor(n_processors) as threads:
                    ext.extra_objects = [name for names in threads.map(compiled, ext.sources) for name in names]
                ext.sources = []
            super().build_extension(ext)

    return BuildInParallel


if __name__ == "__main__":
    compile_into(Path(sys.argv[1]))
