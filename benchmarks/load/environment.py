"""Where and with what the numbers came about; without this they mean little."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.targets import Placement, program_of, version


@dataclass(frozen=True, slots=True)
class Environment:
    """date: UTC, to the minute. versions: program or library -> version. commit: of this checkout, or ""."""

    date: str
    cpu: str
    cores: int
    proxy_core: int
    kernel: str
    versions: dict[str, str]
    commit: str


def read_environment(
    targets: Sequence[str], placement: Placement, tools: Sequence[str] = ("nginx", "wrk")
) -> Environment:
    """tools: further programs whose versions matter."""
    names = dict.fromkeys([*(program_of(target) for target in targets), *tools])
    versions = {name: version(name) for name in names}
    if "lbproxy" in versions:
        versions["Python"] = platform.python_version()
        versions["uvloop"] = importlib.metadata.version("uvloop")
    return Environment(
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        cpu=parse_cpu_model(Path("/proc/cpuinfo").read_text()),
        cores=1 + len(placement.load),
        proxy_core=placement.proxy,
        kernel=parse_release(platform.release()),
        versions=versions,
        commit=_commit(),
    )


def parse_cpu_model(cpuinfo: str) -> str:
    """Model name of the first core in /proc/cpuinfo; the machine type where there is none (ARM)."""
    for line in cpuinfo.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def parse_release(release: str) -> str:
    """The numbers of a kernel release: what a builder or provider appended does not matter here."""
    found = re.match(r"\d+(\.\d+)*", release)
    return found.group() if found else release


def _commit() -> str:
    """Short hash of HEAD, with "+" if tracked files differ from it."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else ""
