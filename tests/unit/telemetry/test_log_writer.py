"""The writer of logs: it drops and counts, and never waits."""

import errno
import os
import select
from pathlib import Path

import pytest

from lbproxy.telemetry.log_writer import LogWriter
from lbproxy.telemetry.recent import RecentLines


def test_lines_arrive_in_order_and_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_text("old\n")
    writer = LogWriter(str(path))
    for number in range(1000):
        writer.append(str(number))
    writer.close(5)
    assert path.read_text().split() == ["old", *map(str, range(1000))]
    assert writer.dropped == 0


def test_a_file_that_cannot_be_opened_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LogWriter(str(tmp_path / "missing" / "access.log"))


def test_a_pipe_without_a_reader_is_an_error_and_not_a_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"No such device or address") as caught:
        LogWriter(str(tmp_path / "pipe"))
    assert caught.value.errno == errno.ENXIO


def test_a_closed_stdout_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.__stdout__", None)
    with pytest.raises(OSError, match="stdout is closed"):
        LogWriter("stdout")


def test_a_full_disk_drops_and_counts() -> None:
    problems: list[str] = []
    writer = LogWriter("/dev/full", on_problem=problems.append)
    for _ in range(300):
        writer.append("x" * 100)
    writer.close(5)
    assert writer.dropped == 300
    assert len(problems) == 1  # one a second
    assert "No space left on device" in problems[0]


def test_a_line_cut_by_a_full_disk_does_not_run_into_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write
    budget = 8

    def write(fd: int, data: bytes) -> int:
        nonlocal budget
        if budget == 0:
            budget = 1000
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real_write(fd, bytes(data)[:budget])
        budget -= done
        return done

    monkeypatch.setattr("lbproxy.telemetry.log_writer.os.write", write)
    path = tmp_path / "access.log"
    writer = LogWriter(str(path))
    writer._write(3, b"first\nsecond\nthird\n")
    writer._write(1, b"fourth\n")
    writer.close(5)
    assert path.read_text() == "first\nse\nfourth\n"
    assert writer.dropped == 2


def test_a_blocked_pipe_drops_counts_and_recovers(tmp_path: Path) -> None:
    fifo = str(tmp_path / "pipe")
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = LogWriter(fifo, max_lines=1000)
    for _ in range(5000):
        writer.append("x" * 199)
    writer.flush_soon()
    dropped = writer.dropped
    assert 0 < dropped < 5000
    received = b""
    for attempt in range(1000):
        if received.count(b"\n") == 5000 - dropped:
            break
        assert select.select([reader], [], [], 5)[0], f"nothing came in round {attempt}"
        received += os.read(reader, 1 << 20)
    writer.append("after")
    writer.close(5)
    assert os.read(reader, 100) == b"after\n"
    assert writer.dropped == dropped
    os.close(reader)


def test_a_byte_bound_holds_as_well() -> None:
    writer = LogWriter("/dev/null", max_bytes=100)
    writer.append("x" * 200)
    writer.close(5)
    assert writer.dropped == 1


def test_a_reader_that_left_costs_lines_only(tmp_path: Path) -> None:
    fifo = str(tmp_path / "pipe")
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = LogWriter(fifo)
    os.close(reader)
    writer.append("lost")
    writer.close(5)
    assert writer.dropped == 1


def test_closing_does_not_wait_for_a_blocked_output_and_counts_what_is_lost(tmp_path: Path) -> None:
    fifo = str(tmp_path / "pipe")
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = LogWriter(fifo)
    for _ in range(1024):
        writer.append("x" * 199)
    writer.close(0.01)
    written = len(os.read(reader, 1 << 20)) // 200
    assert written + writer.dropped == 1024
    os.close(reader)


@pytest.mark.parametrize("gone", ["moved", "deleted"])
def test_reopening_follows_the_name(tmp_path: Path, gone: str) -> None:
    path = tmp_path / "access.log"
    writer = LogWriter(str(path))
    if gone == "moved":
        path.rename(tmp_path / "access.log.1")
    else:
        path.unlink()
    writer.reopen()
    writer.append("new")
    writer.close(5)
    assert path.read_text() == "new\n"


def test_a_failed_reopening_keeps_the_old_file(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    problems: list[str] = []
    writer = LogWriter(str(folder / "access.log"), on_problem=problems.append)
    folder.rename(tmp_path / "moved")
    writer.reopen()
    writer.append("kept")
    writer.close(5)
    assert (tmp_path / "moved" / "access.log").read_text() == "kept\n"
    assert "cannot be reopened" in problems[0]


def test_an_append_after_close_is_dropped_and_counted(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path / "access.log"))
    writer.close(5)
    writer.append("late")
    writer.flush_soon()
    assert writer.dropped == 1


def test_the_last_lines_are_kept_also_when_they_are_lost() -> None:
    recent = RecentLines(100)
    writer = LogWriter("/dev/full", recent=recent)
    for number in range(5):
        writer.append(f"line {number}")
    assert recent.n_lines == 0  # a request pays nothing
    writer.flush_soon()
    writer.close(5)
    assert writer.dropped == 5
    assert list(recent.newest_first()) == [b"line 0\nline 1\nline 2\nline 3\nline 4\n"]


def test_lines_for_a_place_that_others_write_to_are_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe takes PIPE_BUF octets at once, or tears apart what is longer."""
    pieces: list[bytes] = []
    write = os.write

    def kept(fd: int, data: memoryview) -> int:
        pieces.append(bytes(data))
        return write(fd, data)

    monkeypatch.setattr("lbproxy.telemetry.log_writer.os.write", kept)
    lines = [f"{number:04} {'x' * (number % 97)}" for number in range(1000)]
    lines[500] = "y" * (2 * select.PIPE_BUF)  # longer than can be written at once: it is alone
    path = tmp_path / "access.log"
    writer = LogWriter(str(path), is_shared=True)
    for line in lines:
        writer.append(line)
    writer.close(5)
    assert path.read_text().splitlines() == lines
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert [len(piece) > select.PIPE_BUF for piece in pieces].count(True) == 1
    assert len(pieces) < 40
