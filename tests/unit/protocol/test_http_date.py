import calendar
import datetime
import random
from email.utils import formatdate

import pytest

from lbproxy.protocol.http_date import parse_http_date

NOW = 1_795_000_000.0  # November 2026
EXAMPLE = 784_111_777  # RFC 9110 section 5.6.7


@pytest.mark.parametrize(
    "text", [b"Sun, 06 Nov 1994 08:49:37 GMT", b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994"]
)
def test_the_three_forms_are_one_date(text: bytes) -> None:
    assert parse_http_date(text, NOW) == EXAMPLE


def test_any_second_of_the_calendar() -> None:
    rng = random.Random(7)
    for _ in range(2000):
        seconds = rng.randrange(0, 4_102_444_800)
        moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
        assert parse_http_date(formatdate(seconds, usegmt=True).encode(), NOW) == seconds
        assert parse_http_date(moment.strftime("%a %b %e %H:%M:%S %Y").encode(), NOW) == seconds


@pytest.mark.parametrize(("year", "full"), [(26, 2026), (76, 2076), (77, 1977), (99, 1999), (0, 2000)])
def test_a_year_of_two_digits(year: int, full: int) -> None:
    text = f"Sunday, 06-Nov-{year:02} 08:49:37 GMT".encode()
    assert parse_http_date(text, NOW) == calendar.timegm((full, 11, 6, 8, 49, 37))


def test_a_leap_second_and_a_leap_day() -> None:
    assert parse_http_date(b"Sat, 31 Dec 2016 23:59:60 GMT", NOW) == calendar.timegm((2017, 1, 1, 0, 0, 0))
    assert parse_http_date(b"Thu, 29 Feb 2024 00:00:00 GMT", NOW) == calendar.timegm((2024, 2, 29, 0, 0, 0))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"120",
        b"soon",
        b"Sun, 06 Nov 1994 08:49:37",
        b"Sun, 06 Nov 1994 08:49:37 CET",
        b"sun, 06 nov 1994 08:49:37 GMT",
        b"Sun, 6 Nov 1994 08:49:37 GMT",
        b"Sun, 31 Nov 1994 08:49:37 GMT",
        b"Sun, 00 Nov 1994 08:49:37 GMT",
        b"Wed, 29 Feb 2023 00:00:00 GMT",
        b"Sun, 06 Nov 1994 24:49:37 GMT",
        b"Sun, 06 Nov 1994 08:60:37 GMT",
        b"Sun, 06 Nov 1994 08:49:37 GMT\n",
        "Sun, ०६ Nov 1994 08:49:37 GMT".encode(),
    ],
)
def test_anything_else_is_none(text: bytes) -> None:
    assert parse_http_date(text, NOW) is None
