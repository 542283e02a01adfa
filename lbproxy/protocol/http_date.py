"""HTTP-date in its three forms (RFC 9110 section 5.6.7), as seconds since 1970."""

from __future__ import annotations

import re
from typing import Final

_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"), 1
    )
}
_DAY: Final = rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY: Final = rb"(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)"
_MONTH: Final = b"(?P<month>" + b"|".join(_MONTHS) + b")"
_TIME: Final = rb"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})"
_FORMS: Final[tuple[re.Pattern[bytes], ...]] = (
    re.compile(_DAY + rb", (?P<day>[0-9]{2}) " + _MONTH + rb" (?P<year>[0-9]{4}) " + _TIME + rb" GMT"),
    re.compile(_LONG_DAY + rb", (?P<day>[0-9]{2})-" + _MONTH + rb"-(?P<year>[0-9]{2}) " + _TIME + rb" GMT"),  # RFC 850
    re.compile(_DAY + rb" " + _MONTH + rb" (?P<day>[0-9]{2}| [0-9]) " + _TIME + rb" (?P<year>[0-9]{4})"),  # asctime
)
_YEAR_S: Final = 31_556_952  # of the Gregorian calendar, on average


def parse_http_date(value: bytes, now: float) -> int | None:
    """Seconds since 1970 in UTC, or None if it is no date. now: the present, in the same unit.

    A year of two digits is the past one of that name if it would else be more than 50 years ahead. The name of the
    day is not compared with the date: it adds nothing.
    """
    for form in _FORMS:
        found = form.fullmatch(value)
        if found is None:
            continue
        year, month, day = int(found["year"]), _MONTHS[found["month"]], int(found["day"])
        hour, minute, second = int(found["hour"]), int(found["minute"]), int(found["second"])
        if not (1 <= day <= _days_in(year, month) and hour < 24 and minute < 60 and second <= 60):
            return None  # 60: a leap second
        if len(found["year"]) == 2:
            year = _full_year(year, now)
        return (_days(year, month, day) * 24 + hour) * 3600 + minute * 60 + second
    return None


def _full_year(year: int, now: float) -> int:
    this = 1970 + int(now // _YEAR_S)
    full = this - this % 100 + year
    return full - 100 if full > this + 50 else full


def _days_in(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01. Years begin in March here, so that a leap day is the last of its year."""
    if month <= 2:
        year, month = year - 1, month + 12
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 719_469
