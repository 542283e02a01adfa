"""The notations that keys of the config use: each says in one object how a value is read, which JSON Schema describes
it, and which words the manual uses for it. Models combine them with `Annotated[float, SECONDS]`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

import lbproxy.config.units as units
from lbproxy.address import Address, parse_address
from lbproxy.config import slips

JsonSchema = Mapping[str, object]
OFF_SCHEMA: Final[JsonSchema] = {"enum": ["off", False]}
TEXT_SCHEMA: Final[JsonSchema] = {"type": ["string", "number"]}

TOKEN_PATTERN: Final = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"  # RFC 9110 section 5.6.2
_TOKEN_RE: Final = re.compile(TOKEN_PATTERN)
_HOST_RE: Final = re.compile(
    r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?"
)
DNS_PORT: Final = 53
_POOL_NAME_RE: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Section(BaseModel):
    """A mapping of the config file: frozen, unknown keys refused, defaults written as a user would write them."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, validate_default=True)


def setting(default: object, doc: str) -> Any:
    """A key of a section: its default in the user's notation (`...` = required) and its paragraph in the manual."""
    return Field(default, description=doc)


@dataclass(frozen=True)
class Notation:
    """How a scalar is written. `words` stand in the type column of the manual."""

    words: str
    parse: Callable[[object], object]
    schema: JsonSchema

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.parse)

    def __get_pydantic_json_schema__(self, _core: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return dict(self.schema)

    def or_off(self) -> Notation:
        """The same, or `off`, which is None."""

        def parse(value: object) -> object:
            if value is None or units.is_off(value):
                return None
            if isinstance(value, str) and value.lower() in slips.NEVER:
                raise ValueError(f"expected {self.words} or `off`, got {value!r}; did you mean off?")
            try:
                return self.parse(value)
            except ValueError as error:
                # Elsewhere 0 means no limit.
                if value == 0 and not isinstance(value, bool) and ";" not in str(error):
                    raise ValueError(f"{error}; did you mean off?") from None
                raise

        return Notation(f"{self.words} or `off`", parse, {"anyOf": [dict(OFF_SCHEMA), dict(self.schema)]})

    def or_unset(self) -> Notation:
        """The same; None, which no user can write, says that the key is not there."""
        return Notation(self.words, lambda value: None if value is None else self.parse(value), self.schema)


@dataclass(frozen=True)
class Shorthand:
    """A section or list that may also be written shorter. `expand` turns the short form into the long one."""

    words: str
    expand: Callable[[Any], object]
    schemas: tuple[JsonSchema, ...] = field(default=())

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.expand, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [*(dict(schema) for schema in self.schemas), handler(core)]}


def off_is_none(value: object) -> object:
    return None if units.is_off(value) else value


def switch_word(value: object) -> object:
    """`off` and `on` where words are expected, as tools that speak YAML 1.1 rewrite them: false and true."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def one_is_list(value: object) -> object:
    """A single value stands for a list of one."""
    return value if isinstance(value, (list, tuple)) else [value]


def switch(*words: str) -> Shorthand:
    """Words of which `off`, perhaps also `on`, is one."""
    schemas = tuple({"const": flag} for word, flag in (("off", False), ("on", True)) if word in words)
    return Shorthand(", ".join(f"`{word}`" for word in words), switch_word, schemas)


OR_OFF: Final = Shorthand("`off` or a mapping", off_is_none, (OFF_SCHEMA,))


def integer(low: int, high: int) -> Notation:
    def parse(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return int(value)
        if low == 0 and units.is_off(value):
            raise ValueError("cannot be off; write 0")
        raise units.refusal(
            f"expected a whole number from {low} to {high}, got {units.shown(value)}", slips.number(value)
        )

    return Notation(f"whole number, {low} to {high}", parse, {"type": "integer", "minimum": low, "maximum": high})


def parse_token(value: object) -> str:
    text = units.parse_text(value)
    if not _TOKEN_RE.fullmatch(text):
        raise ValueError(f"{text!r} is not a token: letters, digits and !#$%&'*+-.^_`|~ only")
    return text


def parse_method(value: object) -> str:
    text = parse_token(value)
    if text != text.upper():
        raise ValueError(f"methods are case-sensitive; did you mean {text.upper()}?")
    return text


def parse_field_name(value: object) -> str:
    text = units.parse_text(value)
    if not _TOKEN_RE.fullmatch(text):
        raise ValueError(f"{text!r} is not a header name: letters, digits and !#$%&'*+-.^_`|~ only")
    return text


def parse_field_value(value: object) -> str:
    """A header value, free of CR, LF, NUL and other control characters (RFC 9110 section 5.5)."""
    text = units.parse_text(value).strip(" \t")
    if text.endswith(("\r", "\n")):
        raise ValueError(
            "the header value ends with a line break, which a header cannot hold; leave it out where the value is made"
        )
    for char in text:
        if (ord(char) < 32 and char != "\t") or ord(char) == 127:
            raise ValueError(f"the header value holds a control character (U+{ord(char):04X})")
        if ord(char) > 255:
            raise ValueError(f"the header value holds {char!r}, which is not Latin-1")
    return text


def parse_secret(value: object) -> str:
    """A bearer token as clients can send it: visible ASCII without spaces. Messages do not show it."""
    text = units.parse_text(value)
    if not text:
        raise ValueError("the secret is empty: is the variable that it comes from set? `off` means none")
    if text[-1] in "\r\n":
        raise ValueError(
            "the secret ends with a line break, which no client can send; leave it out where the secret is made, as "
            "`printf %s`, `echo -n` and $(cat FILE) do"
        )
    for char in text:
        if not 33 <= ord(char) <= 126:
            what = "a space" if char == " " else f"U+{ord(char):04X}"
            raise ValueError(
                f"the secret holds {what}, which no client can send; use visible ASCII without spaces, such as "
                "`openssl rand -hex 32` prints"
            )
    return text


def parse_alpn(value: object) -> str:
    """An ALPN protocol (RFC 7301 section 3.1): 1 to 255 octets; those in use are ASCII."""
    text = units.parse_text(value)
    if not 1 <= len(text) <= 255 or any(not 33 <= ord(char) <= 126 for char in text):
        raise ValueError(f"expected a protocol name of 1 to 255 visible ASCII characters, got {text!r}")
    return text


def parse_path(value: object) -> str:
    text = units.parse_text(value)
    if not text.startswith("/"):
        raise ValueError(f"expected a path that starts with /, got {text!r}")
    if any(not 33 <= ord(char) <= 126 for char in text):
        raise ValueError(f"the path {text!r} holds a space, a control or a non-ASCII character; percent-encode it")
    return text


def parse_match_path(value: object) -> str:
    text = parse_path(value)
    if "?" in text or "#" in text:
        raise ValueError(f"the path {text!r} holds a query or fragment; match the query with `query`")
    return text


def parse_regex(value: object) -> str:
    text = units.parse_text(value)
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from None
    return text


def parse_host_pattern(value: object) -> str:
    """A host name, an address, or `*.x` for one label before x; lower case, without port and trailing dot."""
    text = units.parse_text(value).lower().rstrip(".")
    if text.startswith("[") and text.endswith("]"):
        try:
            return f"[{ipaddress.IPv6Address(text[1:-1])}]"
        except ValueError:
            raise ValueError(f"{text!r} is not an IPv6 address") from None
    if ":" in text:
        raise ValueError(f"a host is matched without its port, got {text!r}")
    if not _HOST_RE.fullmatch(text.removeprefix("*.")):
        raise ValueError(f"expected a host name or *.name, got {text!r}")
    return text


def parse_host(value: object) -> str:
    """The value of a Host header: a name or an address, with a port or without."""
    text = units.parse_text(value)
    name = re.sub(r":[0-9]{1,5}$", "", text)
    if name.startswith("["):
        parse_host_pattern(name)
    elif not _HOST_RE.fullmatch(name):
        raise ValueError(f"expected a host name, with or without a port, got {text!r}")
    return text


def parse_host_name(value: object) -> str:
    """A name or an address, without a port, in lower case."""
    text = units.parse_text(value)
    if text.startswith("*"):
        raise ValueError(f"expected one host name, got {text!r}")
    return parse_host_pattern(text).strip("[]")


def parse_location(value: object) -> str:
    """The value of a Location header: an absolute URL or a path, visible ASCII only."""
    text = units.parse_text(value)
    if not text or any(not 33 <= ord(char) <= 126 for char in text):
        raise ValueError(
            f"the location {text!r} is empty or holds a space, a control or a non-ASCII character; percent-encode it"
        )
    return text


def checked_address(text: str, *, default_host: str | None = None) -> Address:
    """`parse_address`, and the host must be an address or a name. Without a default host it is a server's."""
    if text.startswith("*:") and default_host is not None:
        raise ValueError(f"{text!r} has no host that can be bound; did you mean {text[1:]}?")
    if told := slips.address(text, is_server=default_host is None):
        raise ValueError(told)
    address = parse_address(text, default_host=default_host)
    if not address.is_literal:
        if re.fullmatch(r"[0-9.]+", address.host):
            raise ValueError(f"{address.host!r} is not an IPv4 address")
        if not _HOST_RE.fullmatch(address.host) or len(address.host) > 253:
            raise ValueError(f"{address.host!r} is not a host name")
    if "\0" in address.path:
        raise ValueError("a unix socket path cannot hold NUL")
    return address


def parse_bind(value: object) -> Address:
    if isinstance(value, Address):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f"expected host:port, got {units.shown(value)}; did you mean :{units.shown(value)}?")
    return checked_address(units.parse_text(value), default_host="0.0.0.0")


def parse_resolver(value: object) -> Address:
    """The address of a DNS server: `IP` or `IP:port`, port 53 if there is none."""
    if isinstance(value, Address):
        return value
    text = units.parse_text(value)
    try:
        return Address(str(ipaddress.ip_address(text.strip("[]"))), DNS_PORT)
    except ValueError:
        pass
    address = parse_address(text)
    if address.is_unix or not address.is_literal or not address.port:
        raise ValueError(f"expected the IP address of a resolver, with a port or without, got {text!r}")
    return address


def parse_srv_name(value: object) -> str:
    """The name of an SRV record. A dot at its end says that it is complete, so it stays."""
    text = units.parse_text(value)
    if re.search(r":[0-9]+$", text):
        raise ValueError(f"an SRV record has the ports of its servers; write {text.rpartition(':')[0]} without one")
    if not _HOST_RE.fullmatch(text) or len(text) > 253 or any(len(label) > 63 for label in text.split(".")):
        raise ValueError(f"expected a name such as _predict._tcp.example.org, got {text!r}")
    return text.lower()


def parse_proxy(value: object) -> ipaddress.IPv4Network | ipaddress.IPv6Network | Literal["unix"]:
    """Whom to trust: a network, or all peers on unix sockets, which have no address."""
    if isinstance(value, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
        return value
    text = units.parse_text(value)
    if text == "unix":
        return "unix"
    if text.startswith("unix:"):
        raise ValueError(
            "peers on unix sockets have no address; write unix, which means those of every listener; who may connect "
            "to which says mode_bits"
        )
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"expected a network such as 10.0.0.0/8, or unix, got {text!r}") from None
    raise ValueError(f"{text!r} has bits set behind the prefix; did you mean {meant}?")


def parse_pool_name(value: object) -> str:
    text = units.parse_text(value)
    if not _POOL_NAME_RE.fullmatch(text):
        hint = slips.name(text)
        rule = f"{text!r} is not a pool name: 1 to 64 letters, digits, '.', '_' and '-'"
        raise ValueError(f"{rule}; {hint}" if hint else rule)
    return text


_DURATION_SCHEMA: Final[JsonSchema] = {
    "anyOf": [{"type": "string", "pattern": units.DURATION_PATTERN}, {"type": "number", "minimum": 0}]
}
_SIZE_SCHEMA: Final[JsonSchema] = {
    "anyOf": [{"type": "string", "pattern": units.SIZE_PATTERN}, {"type": "integer", "minimum": 0}]
}

SECONDS: Final = Notation("duration", units.parse_positive_duration, _DURATION_SCHEMA)
SECONDS_OR_ZERO: Final = Notation("duration, 0 allowed", units.parse_duration, _DURATION_SCHEMA)
BYTES: Final = Notation("size", units.parse_positive_size, _SIZE_SCHEMA)
BYTES_OR_ZERO: Final = Notation("size, 0 allowed", units.parse_size, _SIZE_SCHEMA)
RATE: Final = Notation("rate", units.parse_rate, {"type": "string", "pattern": units.RATE_PATTERN})
FLAG: Final = Notation("`true` or `false`", units.parse_flag, {"type": "boolean"})
TEXT: Final = Notation("text", units.parse_text, TEXT_SCHEMA)
FILE: Final = Notation("text", units.parse_file_name, {**TEXT_SCHEMA, "minLength": 1})
NAME: Final = Notation("name", units.parse_name, TEXT_SCHEMA)
SHARE: Final = Notation("number, 0 to 1", units.parse_share, {"type": "number", "minimum": 0, "maximum": 1})
MODE_BITS: Final = Notation(
    "permission bits in quotes", units.parse_mode_bits, {"type": "string", "pattern": "^0?[0-7]{3}$"}
)
METHOD: Final = Notation("method", parse_method, {"type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Z-]+$"})
FIELD_NAME: Final = Notation("header name", parse_field_name, {"type": "string", "pattern": TOKEN_PATTERN})
FIELD_VALUE: Final = Notation("header value", parse_field_value, TEXT_SCHEMA)
PATH: Final = Notation("path", parse_path, {"type": "string", "pattern": "^/"})
MATCH_PATH: Final = Notation("path", parse_match_path, {"type": "string", "pattern": "^/"})
REGEX: Final = Notation("regular expression", parse_regex, {"type": "string", "format": "regex"})
HOST: Final = Notation("host name, with a port or without", parse_host, {"type": "string"})
HOST_NAME: Final = Notation("host name", parse_host_name, {"type": "string"})
HOST_PATTERN: Final = Notation("host name or `*.name`", parse_host_pattern, {"type": "string"})
SECRET: Final = Notation("secret", parse_secret, {"type": ["string", "number"], "pattern": "^[!-~]+$"})
ALPN: Final = Notation("protocol name", parse_alpn, {"type": "string", "pattern": "^[!-~]{1,255}$"})
LOCATION: Final = Notation("URL or path", parse_location, {"type": "string"})
BIND: Final = Notation("`host:port`, `[v6]:port`, `:port` or `unix:PATH`", parse_bind, {"type": "string"})
RESOLVER: Final = Notation("`IP` or `IP:port`", parse_resolver, {"type": "string"})
SRV_NAME: Final = Notation("name of an SRV record", parse_srv_name, {"type": "string"})
PROXY: Final = Notation("network such as `10.0.0.0/8`, or `unix`", parse_proxy, {"type": "string"})
POOL_NAME: Final = Notation("pool name", parse_pool_name, {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"})
