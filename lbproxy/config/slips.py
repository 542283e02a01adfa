"""What was probably meant by a value that cannot be read: the hint behind the `;` of a complaint, or "".

Only values that were refused come here, so nothing is read differently because of it.
"""

from __future__ import annotations

import re
from typing import Final

NEVER: Final = (
    "never",
    "none",
    "no",
    "infinite",
    "infinity",
    "inf",
    "unlimited",
    "disabled",
    "disable",
    "forever",
    "-1",
)

_UNITS: Final = {
    "ms": ("ms", 1),
    "msec": ("ms", 1),
    "msecs": ("ms", 1),
    "millis": ("ms", 1),
    "millisecond": ("ms", 1),
    "milliseconds": ("ms", 1),
    "s": ("s", 1),
    "sec": ("s", 1),
    "secs": ("s", 1),
    "second": ("s", 1),
    "seconds": ("s", 1),
    "": ("s", 1),
    "m": ("m", 1),
    "min": ("m", 1),
    "mins": ("m", 1),
    "minute": ("m", 1),
    "minutes": ("m", 1),
    "h": ("h", 1),
    "hr": ("h", 1),
    "hrs": ("h", 1),
    "hour": ("h", 1),
    "hours": ("h", 1),
    "d": ("h", 24),
    "day": ("h", 24),
    "days": ("h", 24),
    "w": ("h", 168),
    "week": ("h", 168),
    "weeks": ("h", 168),
}
_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_SIZES: Final = {
    "": "B",
    "b": "B",
    "byte": "B",
    "bytes": "B",
    "k": "KiB",
    "kb": "KB",
    "kib": "KiB",
    "ki": "KiB",
    "m": "MiB",
    "mb": "MB",
    "mib": "MiB",
    "mi": "MiB",
    "g": "GiB",
    "gb": "GB",
    "gib": "GiB",
    "gi": "GiB",
}
_AMOUNT: Final = re.compile(r"\+?([0-9]{1,12}(?:[.,][0-9]{1,6})?)[\s_-]*([A-Za-z]*)")
_SEVERAL: Final = re.compile(r"(?:[0-9]{1,9}\s*(?:ms|s|m|h|d)\s*){2,5}")
_SCHEMES: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_QUOTES: Final = "\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u201b\u00ab\u00bb"


def meant(text: object) -> str:
    return f"did you mean {text}?"


def duration(value: object) -> str:
    if not isinstance(value, str):
        return ""
    text = value.strip()
    if text.lower() in NEVER:
        return "write a long one, such as 24h"
    if text.startswith("-"):
        return "a duration is never negative"
    if found := _AMOUNT.fullmatch(text):
        unit = _UNITS.get(found[2].lower())
        if unit is not None:
            number = float(found[1].replace(",", ".")) * unit[1]
            return meant(f"{number:g}{unit[0]}")
    if _SEVERAL.fullmatch(text):
        parts = re.findall(r"([0-9]+)\s*(ms|s|m|h|d)", text)
        total = sum(int(number) * _UNITS[unit][1] * _MS[_UNITS[unit][0]] for number, unit in parts)
        best = next(unit for unit in ("h", "m", "s", "ms") if total % _MS[unit] == 0)
        return meant(f"{total // _MS[best]}{best}")
    return ""


def size(value: object) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value < 0:
        return "a size is never negative"
    if not isinstance(value, str):
        return ""
    text = value.strip()
    if text.lower() in NEVER:
        return "write a large one, such as 1GiB"
    if text.startswith("-"):
        return "a size is never negative"
    found = _AMOUNT.fullmatch(text)
    unit = _SIZES.get(found[2].lower()) if found else None
    return meant(f"{float(found[1].replace(',', '.')):g}{unit}") if found and unit else ""


def number(value: object) -> str:
    """A whole number in quotes, or with something behind it."""
    if isinstance(value, str) and (found := re.fullmatch(r"\s*\+?([0-9]{1,9})\s*%?\s*", value)):
        return meant(int(found[1]))
    return ""


def name(text: str) -> str:
    """What is wrong with a name that looks right: quotes of a word processor, characters that cannot be seen."""
    bare = text.strip(_QUOTES)
    if bare != text and bare:
        return meant(bare)
    for char in text:
        if not char.isprintable():
            return f"U+{ord(char):04X} in it cannot be seen; remove it"
    return ""


def address(text: str, *, is_server: bool) -> str:
    """What is wrong with an address that stands out, and what to write: `sentence; hint`, or ""."""
    here = "127.0.0.1:{}" if is_server else ":{}"
    if found := re.match(r"(?:(?!unix:)[^$]*:)?\$([A-Za-z_]\w*)", text):  # in a path it may be a letter like any other
        return f"{text!r} is taken as it is; a variable is written ${{{found[1]}}}"
    bare = text.strip().rstrip(";,").strip(_QUOTES + " ")
    if bare != text and bare:
        return f"{text!r} is not an address; {meant(bare)}"
    if "://" in text:
        return _url(text, is_server=is_server)
    if text.startswith(("/", "./", "@")):
        return f"{text!r} has no port; if it is a unix socket, write unix:{text}"
    if found := re.fullmatch(r"([0-9]{1,5})\s*(?:-|\.\.)\s*([0-9]{1,5})", text):
        low, high = sorted(map(int, found.groups()))
        return f"{text!r} has no host; {meant(here.format(f'{low}-{high}'))}"
    if found := re.fullmatch(r":([0-9]{1,5}(?:-[0-9]{1,5})?)", text):
        return f"{text!r} has no host; {meant(here.format(found[1]))}" if is_server else ""
    if "/" in text and (found := re.fullmatch(r"([^/\s]+:[0-9]+)(/.*)", text)):
        return f"{text!r} has a path, which an address has not; {meant(found[1])}"
    if found := re.fullmatch(r"([0-9.]+/[0-9]{1,2})(:[0-9]+)?", text):
        return f"{text!r} names a network; an address is one host and port"
    found = re.fullmatch(r"(\S+:)([0-9]{1,5})(-|\.\.|:)([0-9]{1,5})", text)
    if found and ":" not in found[1][:-1]:
        first, last = int(found[2]), int(found[4])
        is_range = found[3] == "-" and first < last
        if first != last and not is_range:
            low, high = sorted((first, last))
            return f"{text!r} is not a range of ports; {meant(f'{found[1]}{low}-{high}')}"
    return _several_words(text, is_server=is_server)


def _url(text: str, *, is_server: bool) -> str:
    scheme, _, rest = text.partition("://")
    if scheme == "unix":
        return f"{text!r} is a URL; {meant('unix:/' + rest.lstrip('/'))}"
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    has_port = re.search(r":[0-9]+$", host) is not None
    if not has_port and scheme in _SCHEMES:
        host += f":{_SCHEMES[scheme]}"
    if not host:
        return f"{text!r} is a URL; write host:port"
    where = "of the pool" if is_server else "of the listener"
    more = f", and `tls` {where} for {scheme}" if scheme in ("https", "wss") else ""
    path = rest[len(rest.split("/", 1)[0]) :].rstrip("/")
    less = f" (an address has no path: {path} is what clients ask for)" if path else ""
    return f"{text!r} is a URL; write {host}{less}{more}"


def _several_words(text: str, *, is_server: bool) -> str:
    if re.search(r"[{}*]", text):
        return ""
    words = re.split(r"[,\s]+", text)
    if len(words) < 2:
        return ""
    addresses = [word for word in words if re.fullmatch(r"\S+:[0-9]{1,5}", word)]
    if len(addresses) == len(words):
        what = "servers" if is_server else "addresses"
        return f"{text!r} is several {what} in one text; make it a list: [{', '.join(words)}]"
    if weight := re.fullmatch(r"(\S+:[0-9]+)\s+weight\s*=\s*([0-9]+).*", text):
        return f"{text!r} is not an address; {meant('{address: ' + weight[1] + ', weight: ' + weight[2] + '}')}"
    if len(addresses) == 1:
        return f"{text!r} is not an address; {meant(addresses[0])}"
    if len(words) == 2 and words[1].isdigit() and ":" not in words[0]:
        return f"{text!r} is not an address; {meant(':'.join(words))}"
    return ""
