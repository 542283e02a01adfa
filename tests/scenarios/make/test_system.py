"""`make system` says what it installs, and starts no daemon on the machine of whoever runs the tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import servers
from tests.support.build import ROOT

PROGRAMS = {
    # As Debian does: a package's script starts its daemon unless policy-rc.d refuses, and its unit is there afterwards.
    "apt-get": """
        echo "apt-get $*" >>calls
        case "$*" in *install*) ;; *) exit 0 ;; esac
        [ ! -e fail ] || { echo no network; exit 100; }
        if "$POLICY_RC_D" redis-server start; then echo "started redis-server" >>calls; fi
        touch "$SYSTEMD_UNITS/redis-server.service" "$SYSTEMD_UNITS/redis-server@.service"
    """,
    "systemctl": 'echo "systemctl $*" >>calls',
    "sudo": '[ "$1" = -n ] && shift; exec "$@"',
}


class Machine:
    """A folder with programs that stand for those of a Debian machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.policy = folder / "policy-rc.d"
        self.units = folder / "units"
        self.units.mkdir()
        (self.units / "ssh.service").touch()
        (folder / "bin").mkdir()
        for name, body in PROGRAMS.items():
            path = folder / "bin" / name
            path.write_text(f"#!/bin/sh\n{body}\n")
            path.chmod(0o755)

    def install(self, *packages: str) -> str:
        """What system.sh says."""
        done = subprocess.run(
            [ROOT / "tests/support/system.sh", *packages],
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
                "POLICY_RC_D": str(self.policy),
                "SYSTEMD_UNITS": str(self.units),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    yield Machine(tmp_path)


def test_it_says_what_comes_and_nothing_is_started_or_enabled(machine: Machine) -> None:
    said = machine.install("redis-server", "curl")
    assert "installing with apt-get, for tests that drive them: redis-server curl" in said
    assert "SYSTEM=no leaves this out" in said
    assert machine.calls == [
        "apt-get update -qq",
        "apt-get install -y -qq --no-install-recommends redis-server curl",
        "systemctl disable --quiet redis-server.service",
    ]
    assert not machine.policy.exists()


@pytest.mark.parametrize("fails", [False, True])
def test_a_policy_that_was_there_is_there_again(machine: Machine, fails: bool) -> None:
    machine.policy.write_text("#!/bin/sh\nexit 0\n")
    machine.policy.chmod(0o700)
    if fails:
        (machine.folder / "fail").touch()
    said = machine.install("redis-server")
    assert ("could not install redis-server" in said) is fails
    assert "started redis-server" not in machine.calls
    assert machine.policy.read_text() == "#!/bin/sh\nexit 0\n"
    assert machine.policy.stat().st_mode & 0o777 == 0o700


def test_nothing_is_missing_nothing_is_said(machine: Machine) -> None:
    assert machine.install() == ""
    assert machine.calls == []


def test_system_no_installs_nothing() -> None:
    done = subprocess.run(["make", "-s", "system", "SYSTEM=no"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "SYSTEM=no: programs that tests drive are not installed\n")


@pytest.mark.parametrize("ci", ["true", ""])
def test_without_a_program_a_build_server_fails_and_others_skip(ci: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", ci)
    expected = AssertionError if ci else pytest.skip.Exception
    with pytest.raises(expected, match="no-such-program is not installed; `make system` installs it"):
        servers.needed("no-such-program")
