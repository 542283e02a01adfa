"""The attempts of a request in Proxy-Status."""

from __future__ import annotations

import re

from lbproxy import errors
from lbproxy.dataplane.exchange.own_answers import problem
from lbproxy.dataplane.exchange.tries import details, sf_string

SF_STRING = re.compile(rb'"(?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"')  # RFC 8941 section 3.3.3


def test_one_attempt_is_the_word_alone() -> None:
    assert details("reset", ()) == b'"reset"'


def test_each_attempt_is_named_with_reason_and_time() -> None:
    tries = [("predict-1", "connect_refused", 0.0031), ("predict-2", "reset", 0.0118)]
    assert details("reset", tries) == b'"reset; tries: predict-1 connect_refused 3ms, predict-2 reset 12ms"'


def test_the_answer_has_them() -> None:
    fields, _ = problem(errors.RESET, "", "", None, tries=(("a", "reset", 0.0), ("b", "reset", 1.0)))
    value = dict(fields)[b"Proxy-Status"]
    assert (
        value == b'lbproxy; error=%b; details="reset; tries: a reset 0ms, b reset 1000ms"' % errors.RESET.error.encode()
    )


def test_every_character_of_a_name_gives_a_string() -> None:
    every = "".join(map(chr, range(0x120)))
    for text in (every, "\r\nSet-Cookie: a=b", '";x="', "\\"):
        assert SF_STRING.fullmatch(sf_string(text)), text
    assert sf_string('a"b\\c\n\u00e9') == b'"a\\"b\\\\c??"'


def test_many_attempts_and_long_names_are_cut() -> None:
    value = details("response_timeout", [('"' * 300, "response_timeout", 1e6)] * 22)
    assert len(value) < 2048 and SF_STRING.fullmatch(value)
    assert value.endswith(b', 14 more"')
    name = "127.0.0.1:5001"
    assert details("reset", [(name, "reset", 0.001)] * 8).count(name.encode()) == 8
