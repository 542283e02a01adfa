"""Models of a pool's queue: who may wait, for how long, and whose turn it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AfterValidator, create_model

from lbproxy.config.notation import (
    FIELD_NAME,
    OR_OFF,
    SECONDS,
    TEXT_SCHEMA,
    Notation,
    Section,
    integer,
    setting,
)
from lbproxy.config.units import parse_text
from lbproxy.request_key import RequestKey, read_key

MOST_CLASSES: Final = 6


def parse_fair_key(value: object) -> str:
    """Whose a request is, by what its head says."""
    text = parse_text(value)
    try:
        key: RequestKey = read_key(text)
    except ValueError as error:
        raise ValueError(str(error).replace(", api_key or json:/POINTER", " or api_key")) from None
    if key.pointer is not None:
        raise ValueError("a turn is given by the head alone, which has no JSON; such as api_key or header:X-Tenant")
    return text


FAIR_KEY: Final = Notation(
    "`client_ip`, `api_key`, `header:NAME`, `cookie:NAME`, `query:NAME`, `path` or `host`",
    parse_fair_key,
    dict(TEXT_SCHEMA),
)


def parse_class(value: object) -> str:
    """The name of a class, as it stands in a header and in metrics."""
    text = parse_text(value)
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,32}", text):
        raise ValueError(f"expected the name of a class, 1 to 32 letters, digits, `_`, `.` or `-`, got {text!r}")
    return text


CLASS: Final = Notation("name of a class", parse_class, dict(TEXT_SCHEMA))


def check_classes(classes: tuple[str, ...]) -> tuple[str, ...]:
    """There are some, and they differ."""
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise ValueError(f"needs 2 to {MOST_CLASSES} classes, the most urgent first; there are {len(classes)}")
    lower = [name.lower() for name in classes]
    for name in classes:
        if lower.count(name.lower()) > 1:
            raise ValueError(f"names the class {name} twice (case does not matter)")
    return classes


class Classes(Section):
    """`priority` of a queue, but for its key `from`, which no class body can have: a word of Python."""

    header: Annotated[str, FIELD_NAME] = setting(
        "X-Priority", "Header whose value is the name of a class, in any case."
    )
    classes: Annotated[tuple[Annotated[str, CLASS], ...], AfterValidator(check_classes)] = setting(
        ("high", "normal", "low"),
        "The classes, 2 to 6, the most urgent first. While all of them wait three have turns as 8:3:1, two as 3:1, "
        "four as 21:8:3:1, and so on. Who names none of them, or may not, is of the class `normal`, or if there is no "
        "such, of the middle one (of the lower of the two in the middle).",
    )

    @property
    def is_anybody(self) -> bool:
        """May anybody say the class of a request?"""
        return bool(getattr(self, "from") == "any")


if TYPE_CHECKING:

    class Priority(Classes): ...

else:
    Priority = create_model(
        "Priority",
        __base__=Classes,
        __module__=__name__,
        **{
            "from": (
                Literal["trusted", "any"],
                setting("trusted", "Whose word counts: that of `trusted_proxies`, or anybody's."),
            )
        },
    )


class Queue(Section):
    size: Annotated[int, integer(0, 1_000_000)] = setting(1024, "Requests that may wait; more get 503.")
    timeout: Annotated[float, SECONDS] = setting("10s", "Longest wait; then 503.")
    order: Literal["adaptive", "fifo"] = setting(
        "adaptive",
        "`fifo`: first come, first served. `adaptive`: the same, until the queue stands and clients give up; then the "
        "newest first. With `fair_by` this is the order among the requests of one key.",
    )
    fair_by: Annotated[str | None, FAIR_KEY.or_off()] = setting(
        "off",
        "What has turns: while requests wait, those of each key are served in turn, one for each, so that a client "
        "that sends more than its share waits behind its own requests only. Requests without such a key share one "
        "turn. When the queue is full, a newcomer of a key with few takes the place of the newest of the key with "
        "most, which gets the 503.",
    )
    priority: Annotated[Priority | None, OR_OFF] = setting(
        None, "Classes of requests that have more turns than others. `off`: all are alike."
    )
