import json
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.telemetry.accesslog import HeadPart, JsonFormat, LogFormat, make_format
from tests.support.log_records import record

KEYS = re.findall(
    r"\w+",
    "ts request_id client listener method host target protocol status bytes_in bytes_out pool server attempts queue_ms"
    " connect_ms ttfb_ms total_ms end user_agent",
)


USUAL = {name: make_format(name) for name in ("json", "common", "combined")}


def head(log_format: LogFormat, target: str = "/predict", user_agent: str = "curl/8", referer: str = "") -> HeadPart:
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
    host=st.text("Az09-._~!$&'()*+;=%[]:", max_size=300) | st.just("a" * 3000),
    texts=st.lists(st.text(max_size=300), min_size=2, max_size=2),
)
def test_the_usual_part_is_the_part(name: str, target: str, host: str, texts: list[str]) -> None:
    """Whatever came before: what is remembered is what would be made."""
    log_format = USUAL[name]
    agent, referer = texts
    for method in ("GET", "BREW"):
        wanted = log_format.head_part(method, target, host, "HTTP/1.1", agent, referer)
        assert log_format.usual_head_part(method, target, host, "HTTP/1.1", agent, referer) == wanted


def test_what_is_remembered_of_heads_is_bounded() -> None:
    log_format = make_format("json")
    assert isinstance(log_format, JsonFormat)
    for number in range(3000):
        log_format.usual_head_part("GET", "/", "host", "HTTP/1.1", "a" * (number // 2) + f"{number}", "")
        assert len(log_format._texts) <= 1024 and max(map(len, log_format._texts)) <= 256


def test_a_line_does_not_depend_on_those_before_it() -> None:
    """Its parts are remembered by client and by server, and both come in many forms."""
    used, rng = make_format("json"), random.Random(1)
    for _ in range(2000):
        rec = record(
            wall=1_764_540_129.0 + rng.choice((0.0, 0.001, 0.0015, 2.0)),
            client=rng.choice(("192.0.2.7", "192.0.2.8")),
            listener=rng.choice(("front", "back")),
            pool=rng.choice(("a", "b")),
            server=rng.choice(("one", "two", "")),
            status=rng.choice((0, 200, 404, 503)),
            end=rng.choice(("ok", "reset")),
            attempts=rng.choice((0, 1, 2)),
            queue_s=rng.choice((None, 0.0, 0.25)),
            connect_s=rng.choice((None, 0.0, 0.001)),
            ttfb_s=rng.choice((None, 0.0, 0.5)),
        )
        assert used.line(rec) == make_format("json").line(rec)


def test_what_is_remembered_of_lines_is_bounded() -> None:
    log_format = make_format("json")
    assert isinstance(log_format, JsonFormat)
    for number in range(5000):
        log_format.line(record(client=f"{number}", server=f"s{number % 1500}", status=number % 900))
        assert len(log_format._clients) <= 4096 and len(log_format._served) <= 1024
    for status in range(100):
        log_format.line(record(server="one", status=status))
        assert log_format._served["one"].depth <= 8


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
