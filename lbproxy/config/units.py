"""Durations, sizes and other scalars of the config file: what the user writes -> the number that lbproxy keeps.

Every function takes what YAML gave (text, int, float, bool, list or mapping) and raises ValueError with a sentence for
the user. Nothing here knows about keys or positions.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from lbproxy.config import slips

LONGEST_S: Final = 366 * 86400.0
BIGGEST_BYTES: Final = 1 << 40
_MEANT_BOOLEANS: Final = {"yes": "true", "on": "true", "no": "false", "off": "false"}

DURATION_PATTERN: Final = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h)$"
RATE_PATTERN: Final = r"^[0-9]+ in [0-9]+(\.[0-9]+)?(ms|s|m|h)$"
SIZE_PATTERN: Final = r"^[0-9]+(\.[0-9]+)?(B|KB|KiB|MB|MiB|GB|GiB)$"

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES: Final = {
    "B": 1,
    "KB": 1000,
    "KiB": 1024,
    "MB": 1000**2,
    "MiB": 1024**2,
    "GB": 1000**3,
    "GiB": 1024**3,
}
_DURATION_RE: Final = re.compile(DURATION_PATTERN)
_SIZE_RE: Final = re.compile(SIZE_PATTERN)


MOST_EVENTS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Rate:
    """So many events within so many seconds."""

    count: int
    seconds: float


class TypedInt(int):
    """An integer that remembers how it was written, so that a key that wants text gets `007` and not 7."""

    text: str

    def __new__(cls, value: int, text: str) -> TypedInt:
        made = super().__new__(cls, value)
        made.text = text
        return made

    def __getnewargs__(self) -> tuple[int, str]:  # type: ignore[override]
        return int(self), self.text


class TypedFloat(float):
    """A float that remembers how it was written (`1.10` as text is not 1.1)."""

    text: str

    def __new__(cls, value: float, text: str) -> TypedFloat:
        made = super().__new__(cls, value)
        made.text = text
        return made

    def __getnewargs__(self) -> tuple[float, str]:  # type: ignore[override]
        return float(self), self.text


def is_off(value: object) -> bool:
    """`off`, or `false`: tools that still speak YAML 1.1 rewrite one into the other."""
    return value == "off" or value is False


def plain(value: object) -> object:
    """The value without the memory of how it was written."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, TypedInt):
        return int(value)
    return float(value) if isinstance(value, TypedFloat) else value


def shown(value: object) -> str:
    """The value as a message quotes it: short, on one line."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "nothing"
    text = getattr(value, "text", None)
    text = text if isinstance(text, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def refusal(message: str, hint: str = "") -> ValueError:
    """A sentence for the user and, behind `; `, what to write."""
    return ValueError(f"{message}; {hint}" if hint else message)


def parse_duration(value: object) -> float:
    """`250ms`, `2s`, `5m`, `1h` or a number of seconds -> seconds, 0 to 366 days."""
    if is_off(value):
        raise ValueError("cannot be off; write 0s")
    seconds = math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value) if abs(value) <= LONGEST_S else math.nan
    elif isinstance(value, str) and (found := _DURATION_RE.fullmatch(value)):
        unit = found.group(2)
        seconds = float(value[: -len(unit)]) * _SECONDS[unit]
    if not math.isfinite(seconds):
        raise refusal(f"expected a duration such as 250ms, 2s, 5m, got {shown(value)}", slips.duration(value))
    if not 0.0 <= seconds <= LONGEST_S:
        raise ValueError(f"expected a duration from 0 to 366 days, got {shown(value)}")
    return seconds


def parse_positive_duration(value: object) -> float:
    """Like `parse_duration`, without zero."""
    if is_off(value):
        raise ValueError("cannot be off; write a long duration such as 24h")
    seconds = parse_duration(value)
    if seconds <= 0.0:
        raise ValueError("must be longer than 0")
    return seconds


def parse_rate(value: object) -> Rate:
    """`100 in 10s` -> a Rate."""
    if isinstance(value, Rate):
        return value
    if is_off(value):
        raise ValueError(f"cannot be off; write a large rate such as {MOST_EVENTS} in 1s")
    number, word, duration = value.partition(" in ") if isinstance(value, str) else ("", "", "")
    if not word or not number.isascii() or not number.isdigit():
        raise ValueError(f"expected a rate such as 100 in 10s, got {shown(value)}")
    if not 1 <= int(number[:10]) <= MOST_EVENTS:
        raise ValueError(f"expected a rate of 1 to {MOST_EVENTS} events, got {shown(value)}")
    return Rate(int(number), parse_positive_duration(duration))


def parse_size(value: object) -> int:
    """`64KiB`, `10MB` or a number of bytes -> bytes, 0 to 1 TiB."""
    if is_off(value):
        raise ValueError("cannot be off; write 0")
    size = -1.0
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (found := _SIZE_RE.fullmatch(value)):
        unit = found.group(2)
        size = float(value[: -len(unit)]) * _BYTES[unit]
    if size != int(size) or size < 0:
        raise refusal(
            f"expected a size such as 64KiB, 10MB or a number of bytes, got {shown(value)}", slips.size(value)
        )
    if size > BIGGEST_BYTES:
        raise ValueError(f"is larger than 1024GiB: {shown(value)}")
    return int(size)


def parse_positive_size(value: object) -> int:
    """Like `parse_size`, without zero."""
    if is_off(value):
        raise ValueError("cannot be off; write a large size such as 1GiB")
    size = parse_size(value)
    if size == 0:
        raise ValueError("must be larger than 0")
    return size


def parse_file_name(value: object) -> str:
    """The name of a file. An empty one is nobody's intention: it comes from a variable that is not set."""
    text = parse_text(value)
    if not text:
        raise ValueError("the name of the file is empty: is the variable that it comes from set?")
    return text


def parse_flag(value: object) -> bool:
    """`true` or `false`."""
    if isinstance(value, bool):
        return value
    meant = _MEANT_BOOLEANS.get(value.lower()) if isinstance(value, str) else None
    suggestion = f"; did you mean {meant}?" if meant else ""
    raise ValueError(f"expected true or false, got {shown(value)}{suggestion}")


def parse_text(value: object) -> str:
    """Text. A number is taken as it was written; true and false need quotes, because they look like booleans."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        raise ValueError(f'expected text, got {shown(value)}; put it in quotes: "{shown(value)}"')
    if isinstance(value, (TypedInt, TypedFloat)):
        return value.text
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], (str, int, float)):
        raise refusal("expected text, got a list", slips.meant(getattr(value[0], "text", value[0])))
    raise ValueError(f"expected text, got {shown(value)}")


def parse_name(value: object) -> str:
    """A name that appears in metrics, logs and URLs: 1 to 128 printable characters without spaces."""
    text = parse_text(value)
    if not 1 <= len(text) <= 128 or not text.isprintable() or any(c.isspace() for c in text):
        raise ValueError(f"expected a name of 1 to 128 printable characters without spaces, got {text!r}")
    return text


def parse_share(value: object) -> float:
    """A share from 0 to 1."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise ValueError(f"expected a number from 0 to 1, got {shown(value)}")


def written(value: object) -> str:
    """A scalar that was parsed, about as a config file has it: None is `off`."""
    if value is None:
        return "off"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def parse_mode_bits(value: object) -> int:
    """Permission bits in quotes, in octal: `"0660"`."""
    if isinstance(value, str) and re.fullmatch(r"0?[0-7]{3}", value):
        return int(value, 8)
    wanted = 'expected permission bits in quotes such as "0660"'
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f"{wanted}, got the number {shown(value)}")
    raise ValueError(f"{wanted}, got {shown(value)}")
