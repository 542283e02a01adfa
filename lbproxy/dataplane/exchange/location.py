"""Redirects that keep what the client asked for: `https://{host}{path}{query}`."""

from __future__ import annotations

import re
from typing import Final

from lbproxy.domain.paths import PathRules, encoded

_PLACE: Final = re.compile(rb"\{[a-z]+\}")
_port = re.compile(r":[0-9]*\Z").search
# Whatever the listener's path_rules: a browser takes `//evil.example` for another host, and `..` for the folder above.
_RULES: Final = PathRules(passes_slashes=True)


def fill_location(template: bytes, host: str, target: bytes) -> bytes:
    """The value of Location (RFC 9110 section 10.2.2). Raises BadPath.

    {host}: of the request, without its port, since that belongs to the scheme that is left. {path}: in normal form, so
    that it begins with exactly one slash. {query}: with its `?`, empty if there is none. What is filled in was checked
    when the head was parsed: it holds no control character and no space.
    """
    path, mark, query = target.partition(b"?")
    values = {b"{host}": _without_port(host).encode("latin-1"), b"{query}": mark + query}
    if b"{path}" in template:
        text = path.decode("latin-1") if path != b"*" else "/"
        values[b"{path}"] = encoded(_RULES.read(text).sent).encode("latin-1")
    return _PLACE.sub(lambda place: values.get(place[0], place[0]), template)


def _without_port(host: str) -> str:
    port = _port(host)
    return host if port is None or host.endswith("]") else host[: port.start()]
