"""Mistakes with certificates are told at their place, by `check` and at the start, and nothing is half-started."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from tests.support import build
from tests.support.build import ROOT
from tests.support.certificates import Authority
from tests.support.servers import run_refused

CONFIG = """\
listeners:
  - bind: 127.0.0.1:{port}
    pool: p
    tls: {{cert: served.pem, key: {key}}}
pools:
  p:
    servers: ['127.0.0.1:1']
admin: {{bind: off}}
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    authority = Authority(tmp_path)
    authority.issue("served", "localhost")
    authority.issue("other", "localhost")
    (tmp_path / "text.key").write_text("hello\n")
    return tmp_path


def check(path: Path) -> subprocess.CompletedProcess[str]:
    command = [*build.COMMAND, "check", "-c", str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("missing.key", "there is no file"),
        ("other.key", "is not the key of the certificate in"),
        ("text.key", "is not PEM"),
        ("served.pem", "holds no private key"),
    ],
)
def test_mistakes(directory: Path, key: str, words: str) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        path = directory / "lb.yaml"
        path.write_text(CONFIG.format(port=port, key=key))
        for done in (check(path), run_refused(path)):
            assert done.returncode == 2, done.stderr
            assert done.stderr.startswith(f"{path}:4:34: listeners[0].tls.key: ")
            assert words in done.stderr
            assert "Traceback" not in done.stderr
            assert "listening" not in done.stderr


def test_warnings(directory: Path) -> None:
    Authority(directory, "again").issue("served", "localhost", expired=True)
    path = directory / "lb.yaml"
    path.write_text(CONFIG.format(port=2, key="served.key"))
    done = check(path)
    assert done.returncode == 0
    assert "listeners[0].tls.cert:" in done.stderr
    assert "the certificate expired on" in done.stderr
    assert done.stderr.rstrip().endswith("(warning)")
