"""A section that was written as one value: `retry: 3`, `tls: true`. Which of its keys is meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel, ValidationError

from lbproxy.config.problems import Path
from lbproxy.config.sections import section_at

MEANT: Final[Mapping[str, tuple[str, ...]]] = {
    "AccessLog": ("path",),
    "ApiKeys": ("file",),
    "CircuitBreaker": ("failures", "open"),
    "Dns": ("srv", "interval"),
    "KeepAlive": ("idle", "idle_timeout"),
    "Limits": ("connections", "buffered_bytes"),
    "ListenerLimits": ("body_bytes",),
    "ListenerTimeouts": ("keep_alive",),
    "Log": ("level", "format"),
    "Match": ("path_prefix", "host"),
    "PoolLimits": ("head_bytes",),
    "PoolTimeouts": ("response_head",),
    "PoolTimeoutsOverride": ("response_head",),
    "PoolTls": ("ca",),
    "Priority": ("header",),
    "Queue": ("size", "timeout"),
    "Redirect": ("location",),
    "Respond": ("status", "body"),
    "Retry": ("attempts",),
    "RetryOverride": ("attempts",),
    "RetryBudget": ("ratio",),
    "RetryBackoff": ("max",),
    "Rewrite": ("strip_prefix",),
    "Shutdown": ("grace",),
    "Sticky": ("cookie",),
}
"""By the name of a section's model: its keys that one value may be meant for; the first that takes it is named."""
EXAMPLES: Final[Mapping[str, str]] = {
    "ApiKeys": "{file: FILE}",
    "ListenerTls": "{cert: FILE, key: FILE}",
    "Priority": "{classes: [high, normal, low]}",
    "Sticky": "{cookie: NAME, secret: TEXT}",
}
"""What is to be said by those who only want a section that is off where nothing is said."""
_YES: Final = ("on", "yes", "true", "enable", "enabled")


def suggestion(path: Path, given: object) -> str:
    """What to write in place of a scalar where the section at a path should stand; "" if nobody knows."""
    section, parent = section_at(path), section_at(path[:-1])
    if section is None or parent is None or not path:
        return ""
    text = getattr(given, "text", given)
    if given is True or (isinstance(text, str) and text.lower() in _YES):
        if example := EXAMPLES.get(section.__name__):
            return f"write {example}"
        field = parent.model_fields.get(str(path[-1]))
        is_there = field is not None and isinstance(field.default, BaseModel)
        return "leave it out: without it the defaults hold" if is_there else ""
    if isinstance(given, bool) or not isinstance(text, (str, int, float)) or not str(text).isprintable():
        return ""
    for key in MEANT.get(section.__name__, ()):
        if _takes(section, key, given):
            return f"did you mean {{{key}: {text}}}?"
    return ""


def _takes(section: type[BaseModel], key: str, value: object) -> bool:
    try:
        section.model_validate({key: value})
    except ValidationError as error:
        return not any(detail["loc"][:1] == (key,) for detail in error.errors())
    return True
