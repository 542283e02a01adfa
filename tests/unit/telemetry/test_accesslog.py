import errno
import json
import os
import re
import select
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.telemetry.accesslog import JsonFormat, LogFormat, LogWriter, make_format
from tests.support.log_records import record

KEYS = re.findall(
    r"\w+",
    "ts request_id client listener method host target protocol status bytes_in bytes_out pool server attempts queue_ms"
    " connect_ms ttfb_ms total_ms end user_agent",
)


USUAL = {name: make_format(name) for name in ("json", "common", "combined")}


def head(log_format: LogFormat, target: str = "/predict", user_agent: str = "curl/8", referer: str = "") -> str:
    return log_format.head_part("POST", target, "example.org", "HTTP/1.1", user_agent, referer)


def test_a_json_line_has_every_key_in_the_documented_order() -> None:
    log_format = make_format("json")
    pairs = json.loads(log_format.line(record(log_head=head(log_format))), object_pairs_hook=list)
    assert [key for key, _ in pairs] == KEYS
    fields = dict(pairs)
    assert fields["ts"] == "2026-11-30T22:02:09.500Z"
    assert (fields["method"], fields["target"], fields["user_agent"]) == ("POST", "/predict", "curl/8")
    assert (fields["queue_ms"], fields["connect_ms"], fields["ttfb_ms"], fields["total_ms"]) == (None, 0.4, 250, 300)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "null"), (0.0, "0.000"), (0.0000004, "0.000"), (0.0012345, "1.235"), (61.5, "61500.000")],
)
def test_times_are_milliseconds_to_the_microsecond(seconds: float | None, shown: str) -> None:
    line = make_format("json").line(record(queue_s=seconds, connect_s=seconds, ttfb_s=seconds, total_s=seconds or 0.0))
    for key in ("queue_ms", "connect_ms", "ttfb_ms"):
        assert f'"{key}":{shown},' in line
    assert f'"total_ms":{"0.000" if seconds is None else shown},' in line


def test_a_tcp_line_has_no_request() -> None:
    fields = json.loads(make_format("json").line(record(status=0)))
    assert list(fields) == KEYS
    assert [fields[key] for key in ("method", "target", "status", "host", "user_agent")] == [None] * 5


@given(text=st.text(alphabet=st.characters(), max_size=50), request_id=st.text(max_size=40))
def test_nothing_in_a_request_breaks_out_of_its_json_field(text: str, request_id: str) -> None:
    log_format = make_format("json")
    part = log_format.head_part(text, text, text, text, text, text)
    line = log_format.line(record(log_head=part, request_id=request_id, client=text, end=text))
    assert "\n" not in line and "\r" not in line
    fields = json.loads(line)
    assert list(fields) == KEYS
    assert {fields[key] for key in ("method", "host", "target", "protocol", "user_agent", "client", "end")} == {text}
    assert fields["request_id"] == request_id


@pytest.mark.parametrize("name", ["json", "common", "combined"])
@given(
    target=st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), max_size=60)
    | st.just("/" + "a" * 3000),
    texts=st.lists(st.text(max_size=300), min_size=3, max_size=3),
)
def test_the_usual_part_is_the_part(name: str, target: str, texts: list[str]) -> None:
    """Whatever came before: what is remembered is what would be made."""
    log_format = USUAL[name]
    host, agent, referer = texts
    for method in ("GET", "BREW"):
        wanted = log_format.head_part(method, target, host, "HTTP/1.1", agent, referer)
        assert log_format.usual_head_part(method, target, host, "HTTP/1.1", agent, referer) == wanted


def test_what_is_remembered_of_heads_is_bounded() -> None:
    log_format = make_format("json")
    assert isinstance(log_format, JsonFormat)
    for number in range(3000):
        log_format.usual_head_part("GET", "/", f"host{number}", "HTTP/1.1", "a" * number, "")
        assert len(log_format._texts) <= 1024 and max(map(len, log_format._texts)) <= 256


@pytest.mark.parametrize("name", ["json", "common", "combined"])
def test_a_field_is_capped_at_2_kib(name: str) -> None:
    log_format = make_format(name)
    line = log_format.line(record(log_head=head(log_format, target="/" + "a" * 5000)))
    longest = max(re.findall(r"/a+\.*", line), key=len)
    assert len(longest) == 2048
    assert longest.endswith("a...")


def test_the_second_changes_with_the_clock_in_both_directions() -> None:
    log_format = make_format("json")
    stamps = [json.loads(log_format.line(record(wall=wall)))["ts"] for wall in (10.0, 11.999, 9.25)]
    assert stamps == ["1970-01-01T00:00:10.000Z", "1970-01-01T00:00:11.999Z", "1970-01-01T00:00:09.250Z"]


def test_common_and_combined_look_like_apache() -> None:
    common, combined = make_format("common"), make_format("combined")
    start = '192.0.2.7 - - [30/Nov/2026:22:02:09 +0000] "POST /predict HTTP/1.1" 200 34'
    assert common.line(record(log_head=head(common))) == start
    assert combined.line(record(log_head=head(combined, referer="http://a/"))) == start + ' "http://a/" "curl/8"'
    assert combined.line(record(log_head=head(combined, user_agent=""))) == start + ' "-" "-"'


def test_apache_lines_of_tcp_connections_and_empty_answers() -> None:
    start = '192.0.2.7 - - [30/Nov/2026:22:02:09 +0000] "-" - -'
    assert make_format("common").line(record(status=0, bytes_out=0)) == start
    assert make_format("combined").line(record(status=0, bytes_out=0)) == start + ' "-" "-"'


@given(text=st.text(max_size=50))
def test_apache_fields_are_printable_ascii_and_keep_their_quotes(text: str) -> None:
    log_format = make_format("combined")
    line = log_format.line(record(log_head=head(log_format, target=text, user_agent=text)))
    assert line.isascii() and line.isprintable()
    assert re.fullmatch(r'\S+ - - \[[^]]+\] "(?:[^"\\]|\\.)*" 200 34 "-" "(?:[^"\\]|\\.)*"', line)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(KeyError):
        make_format("xml")


# --- the writer -----------------------------------------------------------------------------------------------------


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

    monkeypatch.setattr("lbproxy.telemetry.accesslog.os.write", write)
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
