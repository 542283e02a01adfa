"""Output that cannot be written ends in a sentence, not in a traceback."""

from __future__ import annotations

import errno
import io
import os
import sys

import pytest

from lbproxy.cli import streams


class Broken(io.StringIO):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def flush(self) -> None:
        raise OSError(self.number, os.strerror(self.number))


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(errno.ENOSPC))
    with pytest.raises(streams.OutputError, match="No space left on device"):
        streams.say("x")


def test_a_reader_who_left_is_nobodys_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(errno.EPIPE))
    with pytest.raises(BrokenPipeError):
        streams.write("x")


def test_what_cannot_be_told_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Broken(errno.ENOSPC)
    monkeypatch.setattr(sys, "stderr", stderr)
    streams.complain("x")
    assert stderr.getvalue() == "x\n"
