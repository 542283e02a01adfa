"""Paths: the one form in which rules see them and servers get them.

A rule that sees another path than the server understands can be walked around: to Flask `//admin`, `/%61dmin` and
`/admin` are one view. So where a rule looks at a path, or a route rewrites it, the path is brought into a normal form
(RFC 3986 section 6.2.2) and that form is forwarded:

- %XX of unreserved characters is decoded, all other ones are written in upper case;
- runs of `/` become one.

What servers are known to read in several ways, and no honest client sends, is refused instead of interpreted: dot
segments (also in front of a `;`), backslashes, NUL, overlong UTF-8 (a disguise of `/`, `.` and `\\`), and a `%` without
two hexadecimal digits, from which a second decoding could make any of these. Clients resolve dot segments themselves
(RFC 3986 section 5.2.4), so that nothing is lost. Encoded slashes and backslashes are refused too, unless the config
lets them pass.

What is legal and still ambiguous is refused only where it matters. To some servers `/admin;x` is `/admin` with a
parameter, to others it is a name; to some `a%2Fb` is one segment, to others two. Such a path has several readings, and
all of them must lead to the same route.

Rules compare a stricter form, in which equal paths are equal texts: `%21` and `!` differ for RFC 3986 (section 2.2),
but not for a server that decodes its path.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

# Everything else needs a closer look: doubled slashes, segments that begin with a dot, escapes, parameters, and what no
# path may hold but some client sends (`"`, `[`, `|` ...).
_notable = re.compile(r"//|/\.|[^A-Za-z0-9\-._~!$&'()*+,=:@/]").search
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_SUB_DELIMS: Final = frozenset("!$&'()*+,=:@")
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})?")
_SLASHES: Final = re.compile(r"/{2,}")
_PARAMETERS: Final = re.compile(r";[^/]*")
_ENCODED_SLASH: Final = re.compile(r"%2F|%5C")
_SPELLINGS: Final = re.compile(r"%[0-9A-F]{2}|[^A-Za-z0-9\-._~!$&'()*+,=:@/;%]")
# The second octets that no UTF-8 has behind these first ones: shorter encodings exist (RFC 3629 section 3).
_overlong = re.compile(r"%C[01]%[89AB]|%E0%[89]|%F0%8").search


class BadPath(ValueError):
    """A path that is refused rather than routed; the message says why. The request is answered with 400."""


class ReadPath:
    """A path that was understood.

    sent: what the server gets. readings: what rules must agree on, the usual one first.
    """

    __slots__ = ("readings", "sent")

    def __init__(self, sent: str, readings: tuple[str, ...]) -> None:
        self.sent = sent
        self.readings = readings


class PathRules:
    """How a listener reads paths.

    mode: `normalise`; `strict` refuses what `normalise` would change; `raw` compares and sends the path as it came.
    passes_slashes: encoded slashes and backslashes are not refused, but one reading more.
    """

    __slots__ = ("is_raw", "is_strict", "passes_slashes")

    def __init__(self, mode: str = "normalise", *, passes_slashes: bool = False) -> None:
        self.is_strict = mode == "strict"
        self.is_raw = mode == "raw"
        self.passes_slashes = passes_slashes

    def read(self, raw: str) -> ReadPath:
        """The path of a request, without its query. `*` (OPTIONS) is itself. Raises BadPath."""
        if self.is_raw or _notable(raw) is None or not raw.startswith("/"):
            return ReadPath(raw, (raw,))
        sent = normalise_path(raw, passes_slashes=self.passes_slashes)
        if self.is_strict and sent != raw:
            raise BadPath("the path is not in normal form, which path_rules: strict demands")
        return ReadPath(sent, _readings(sent))

    def configured(self, text: str) -> str:
        """A path of the config, as `read` gives those of requests that are equal to it. Raises BadPath."""
        path = encoded(text)
        return path if self.is_raw else comparable(normalise_path(path, passes_slashes=self.passes_slashes))


def normalise_path(raw: str, *, passes_slashes: bool = False) -> str:
    """The path in normal form (see the preface). Raises BadPath."""
    if _notable(raw) is None or raw == "*":
        return raw
    if "\\" in raw:
        raise BadPath("the path has a backslash")
    if "\0" in raw:
        raise BadPath("the path has a NUL character")
    path = _SLASHES.sub("/", _ESCAPE.sub(_decode_unreserved, raw))
    if _overlong(path) is not None:
        raise BadPath("the path has an overlong encoding of a character")
    found = _ENCODED_SLASH.search(path)
    if found is not None:
        if not passes_slashes:
            raise BadPath(f"the path has an encoded {'slash' if found[0] == '%2F' else 'backslash'}")
        _refuse_dots(_ENCODED_SLASH.sub("/", path))
    _refuse_dots(path)
    return path


def _refuse_dots(path: str) -> None:
    if "/." not in path:
        return
    for segment in path.split("/"):
        if segment.partition(";")[0] in (".", ".."):
            raise BadPath(f"the path has a {segment!r} segment")


def _decode_unreserved(escape: re.Match[str]) -> str:
    digits = escape[1]
    if digits is None:
        raise BadPath("the path has a '%' without two hexadecimal digits")
    character = chr(int(digits, 16))
    if character in _UNRESERVED:
        return character
    if character == "\0":
        raise BadPath("the path has an encoded NUL")
    return "%" + digits.upper()


def comparable(path: str) -> str:
    """A normalised path with one spelling for each character: equal if a server that decodes sees the same."""
    return _SPELLINGS.sub(_usual_spelling, path)


def _usual_spelling(found: re.Match[str]) -> str:
    text = found[0]
    if len(text) == 1:
        return f"%{ord(text):02X}"
    character = chr(int(text[1:], 16))
    return character if character in _SUB_DELIMS else text


def _readings(sent: str) -> tuple[str, ...]:
    """What servers may understand of a normalised path, in the spelling that rules compare."""
    first = comparable(sent)
    readings = [first]
    if "%2F" in first or "%5C" in first:
        readings.append(_ENCODED_SLASH.sub("/", first))
    if "%3B" in first:
        readings += [text.replace("%3B", ";") for text in readings]
    if ";" in readings[-1]:
        readings += [_PARAMETERS.sub("", text) for text in readings]
    if len(readings) == 1:
        return (first,)
    merged = [_SLASHES.sub("/", text) for text in readings]
    for text in merged:
        _refuse_dots(text)
    return tuple(dict.fromkeys(merged))


def encoded(text: str) -> str:
    """A path of the config as clients send it: characters that a path cannot hold are percent-encoded."""
    return quote(text, safe="/%:@!$&'()*+,;=~-._")


def rewrite_path(path: str, strip_prefix: str | None, path_prefix: str | None) -> str:
    """The path that the server gets: `strip_prefix` taken off if the path is at or below it, then `path_prefix` put on.

    With strip_prefix /api and path_prefix /v2: /api is /v2, /api/ is /v2/, /api/x is /v2/x. The result starts with
    exactly one slash if something was stripped, so that no server reads the first segment as a host. `*` (OPTIONS)
    stays. path: as `PathRules.read` has it sent, so without dot segments, which could lead out of `path_prefix`. Never
    raises.
    """
    if not path.startswith("/"):
        return path
    rest = path
    if strip_prefix:
        prefix = encoded(strip_prefix).rstrip("/")
        if path != prefix and not path.startswith(prefix + "/"):
            prefix = comparable(prefix)  # in another spelling, perhaps, as the rule has found it
            spelled = comparable(path)
            path = spelled if spelled == prefix or spelled.startswith(prefix + "/") else path
        if path == prefix:
            rest = ""
        elif path.startswith(prefix + "/"):
            rest = "/" + path[len(prefix) :].lstrip("/")
    if path_prefix:
        rest = encoded(path_prefix).rstrip("/") + rest
    return rest or "/"
