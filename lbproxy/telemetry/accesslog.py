"""The access log's lines, in formats that cost little per request.

A format renders one line from a record (the exchange itself). What depends only on the request head is rendered once by
`head_part` and memoised by the caller together with the parsed head. log_writer.py writes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from json.encoder import encode_basestring_ascii as _json_string  # the C function where there is one
from typing import Final

from lbproxy.compiling import i64, is_clean, join_many, join_three, mypyc_attr
from lbproxy.telemetry import wire_text

FIELD_LIMIT: Final = 2048  # characters of one request field in a line
HeadPart = tuple[str, str]
"""What a line needs of the request head, for two places of the line. The first is "" where there was no head."""
NO_HEAD: Final[HeadPart] = ("", "")

_MAX_REMEMBERED: Final = 256  # characters of a text, and
_MAX_TEXTS: Final = 1024  # texts, whose escaped form is kept
_MAX_CLIENTS: Final = 4096
_MAX_SERVERS: Final = 1024
_MAX_ENDS: Final = 8  # statuses and ends for each of them


Try = tuple[str, str, float]
"""One attempt of several: the server's name, the word of what ended it ("ok" for an answer), and its seconds."""


@mypyc_attr(allow_interpreted_subclasses=True)
class LogRecord:
    """What a line is made from. Times are seconds; None means that the request never got there.

    wall: time.time() at the start of the request. log_head: what `head_part` returned, NO_HEAD in TCP mode. status: 0
    in TCP mode. A base class, not a Protocol: compiled code reads the attributes of a class that it knows in place.
    """

    __slots__ = (
        "attempts",
        "bytes_in",
        "bytes_out",
        "client",
        "connect_s",
        "end",
        "listener",
        "log_head",
        "pool",
        "queue_s",
        "request_id",
        "server",
        "status",
        "total_s",
        "tries",
        "ttfb_s",
        "wall",
    )

    wall: float
    log_head: HeadPart
    request_id: str
    client: str
    listener: str
    status: int
    bytes_in: int
    bytes_out: int
    pool: str
    server: str
    attempts: int
    queue_s: float | None
    connect_s: float | None
    ttfb_s: float | None
    total_s: float
    end: str
    tries: tuple[Try, ...]


class LogFormat:
    """Renders lines, without the newline. A base class for the same reason."""

    __slots__ = ()

    def head_part(self, method: str, target: str, host: str, protocol: str, user_agent: str, referer: str) -> HeadPart:
        """What a line needs of the request head, escaped and capped at 2 KiB a field. Pure."""
        raise NotImplementedError

    def usual_head_part(
        self, method: str, target: str, host: str, protocol: str, user_agent: str, referer: str
    ) -> HeadPart:
        """The same of a head that was accepted: the target is visible ASCII, and neither method nor host have anything
        that is escaped in JSON."""
        return self.head_part(method, target, host, protocol, user_agent, referer)

    def with_subject(self, head_part: HeadPart, subject: str) -> HeadPart:
        """The head part (NO_HEAD in TCP mode) of a client that showed a certificate, with its subject."""
        raise NotImplementedError

    def with_key(self, head_part: HeadPart, name: str) -> HeadPart:
        """The head part of a client that sent an API key, with its name."""
        raise NotImplementedError

    def line(self, rec: LogRecord) -> str:
        raise NotImplementedError


def make_format(name: str) -> LogFormat:
    """`json`, `common` or `combined`. Raises KeyError for any other name."""
    makers: dict[str, Callable[[], LogFormat]] = {
        "json": JsonFormat,
        "common": ApacheFormat,
        "combined": lambda: ApacheFormat(combined=True),
    }
    return makers[name]()


def _capped(text: str) -> str:
    return text if len(text) <= FIELD_LIMIT else text[: FIELD_LIMIT - 3] + "..."


class JsonFormat(LogFormat):
    """One JSON object a line, keys always present and in one order; what does not apply is null."""

    __slots__ = (
        "_begin",
        "_clients",
        "_hosts",
        "_last_host",
        "_last_served",
        "_ms",
        "_second",
        "_served",
        "_stamp",
        "_texts",
    )

    def __init__(self) -> None:
        self._clients: dict[str, _Client] = {}
        self._served: dict[str, _Served] = {}
        self._texts: dict[str, str] = {}
        self._hosts: dict[str, _Host] = {}
        self._last_host: _Host | None = None  # these two are of the last line: most are of the next one, too
        self._last_served: _Served | None = None
        self._ms: i64 = -1
        self._begin = ""  # of the lines of this millisecond
        self._second: i64 = -1
        self._stamp = ""

    def head_part(self, method: str, target: str, host: str, protocol: str, user_agent: str, referer: str) -> HeadPart:
        return (
            f'"method":{_json_string(_capped(method))},"host":{_json_string(_capped(host))},'
            f'"target":{_json_string(_capped(target))},"protocol":{_json_string(_capped(protocol))}',
            _json_string(_capped(user_agent)),
        )

    def usual_head_part(
        self, method: str, target: str, host: str, protocol: str, user_agent: str, referer: str
    ) -> HeadPart:
        agent = self._texts.get(user_agent)
        if agent is None:
            agent = self._text(user_agent)
        if len(target) > FIELD_LIMIT or len(host) > FIELD_LIMIT or not is_clean(target):
            return self.head_part(method, target, host, protocol, "", "")[0], agent
        known = self._last_host
        if known is None or known.host is not host or known.method != method or known.protocol != protocol:
            known = self._hosts.get(host)
            if known is None or known.method != method or known.protocol != protocol:
                known = self._host(method, host, protocol)
            self._last_host = known
        return join_three(known.before, target, known.behind), agent

    def _host(self, method: str, host: str, protocol: str) -> _Host:
        known = _Host(method, host, protocol)
        if len(host) <= _MAX_REMEMBERED:
            if len(self._hosts) >= _MAX_TEXTS:
                self._hosts.clear()
            self._hosts[host] = known
        return known

    def _text(self, text: str) -> str:
        """A text that comes again and again, escaped once."""
        quoted = _json_string(_capped(text))
        if len(text) <= _MAX_REMEMBERED:
            if len(self._texts) >= _MAX_TEXTS:
                self._texts.clear()
            self._texts[text] = quoted
        return quoted

    def with_subject(self, head_part: HeadPart, subject: str) -> HeadPart:
        # The head part ends a line, so what is added to it stands behind the last key.
        head, user_agent = head_part if head_part[0] else _TCP_HEAD
        return head, f'{user_agent},"client_cert":{_json_string(_capped(subject))}'

    def with_key(self, head_part: HeadPart, name: str) -> HeadPart:
        return head_part[0], f'{head_part[1]},"key":{_json_string(_capped(name))}'

    def line(self, rec: LogRecord) -> str:
        # What repeats from line to line is rendered once, so that few texts are joined: each costs as much as its copy.
        ms: i64 = int(rec.wall * 1000.0)
        if ms != self._ms:
            self._begin_lines(ms)
        client = self._clients.get(rec.client)
        if client is None or (client.listener is not rec.listener and client.listener != rec.listener):
            client = self._client(rec)
        served = self._last_served
        if served is None or served.server is not rec.server or not served.is_of(rec):
            served = self._served.get(rec.server)
            while served is not None and not served.is_of(rec):
                served = served.other
            if served is None:
                served = self._serve(rec)
            self._last_served = served
        head, user_agent = rec.log_head
        if not head:
            head, user_agent = _TCP_HEAD
        request_id = rec.request_id
        if not is_clean(request_id):
            request_id = _json_string(request_id)[1:-1]
        middle = served.usual
        if rec.attempts != 1 or rec.connect_s is not None or not _is_zero(rec.queue_s):
            middle = (
                f'{served.begin}{_number(rec.attempts)},"queue_ms":{_milliseconds(rec.queue_s)},'
                f'"connect_ms":{_milliseconds(rec.connect_s)},"ttfb_ms":'
            )
        ttfb, ttfb_part = "null", ',"total_ms":'
        ttfb_s = rec.ttfb_s
        if ttfb_s is not None:
            ttfb_us: i64 = int(ttfb_s * 1e6 + 0.5)
            ttfb, ttfb_part = _number(ttfb_us // 1000), _MILLIS_OF_TTFB[ttfb_us % 1000]
        total_us: i64 = int(rec.total_s * 1e6 + 0.5)
        bytes_in: i64 = rec.bytes_in
        return join_many(
            self._begin,
            request_id,
            client.text,
            head,
            served.status_text,
            _NUMBERS_IN[bytes_in] if 0 <= bytes_in < _N_NUMBERS else f'{bytes_in},"bytes_out":',
            _number(rec.bytes_out),
            middle,
            ttfb,
            ttfb_part,
            _number(total_us // 1000),
            _MILLIS[total_us % 1000],
            served.end_text,
            user_agent,
            f"{_tries(rec.tries)}}}" if rec.tries else "}",
        )

    def _begin_lines(self, ms: i64) -> None:
        second = ms // 1000
        if second != self._second:
            self._second = second
            self._stamp = time.strftime('{"ts":"%Y-%m-%dT%H:%M:%S', time.gmtime(second))
        self._ms = ms
        self._begin = join_three(self._stamp, _MILLIS[ms % 1000], 'Z","request_id":"')

    def _client(self, rec: LogRecord) -> _Client:
        if len(self._clients) >= _MAX_CLIENTS:
            self._clients.clear()
        text = f'","client":{_json_string(_capped(rec.client))},"listener":{_json_string(_capped(rec.listener))},'
        client = self._clients[rec.client] = _Client(rec.listener, text)
        return client

    def _serve(self, rec: LogRecord) -> _Served:
        if len(self._served) >= _MAX_SERVERS:
            self._served.clear()
        other = self._served.get(rec.server)
        if other is not None and other.depth >= _MAX_ENDS:
            other = None
        served = self._served[rec.server] = _Served(rec, other)
        return served


class _Host:
    """What stands before and behind the target of a request to a host. Of several kinds of requests the last is
    remembered."""

    __slots__ = ("before", "behind", "host", "method", "protocol")

    def __init__(self, method: str, host: str, protocol: str) -> None:
        self.host = host
        self.method = method
        self.protocol = protocol
        self.before = f'"method":"{method}","host":"{host}","target":"'
        self.behind = f'","protocol":"{protocol}"'


class _Client:
    """The part of a line that names the client. Of several listeners with the same client one is remembered."""

    __slots__ = ("listener", "text")

    def __init__(self, listener: str, text: str) -> None:
        self.listener = listener
        self.text = text


class _Served:
    """The parts of a line that say where the request went and how it ended. other: one of the same server.

    begin: up to the number of attempts; usual: up to the first byte's time, for one attempt at a server that was free,
    on a connection that was there.
    """

    __slots__ = ("begin", "depth", "end", "end_text", "other", "pool", "server", "status", "status_text", "usual")

    def __init__(self, rec: LogRecord, other: _Served | None) -> None:
        self.pool = rec.pool
        self.server = rec.server
        self.status = rec.status
        self.end = rec.end
        self.other = other
        self.depth: i64 = other.depth + 1 if other is not None else 1
        self.status_text = f',"status":{rec.status or "null"},"bytes_in":'
        self.begin = (
            f',"pool":{_json_string(_capped(rec.pool))},"server":{_json_string(_capped(rec.server))},"attempts":'
        )
        self.usual = f'{self.begin}1,"queue_ms":0.000,"connect_ms":null,"ttfb_ms":'
        self.end_text = f',"end":{_json_string(_capped(rec.end))},"user_agent":'

    def is_of(self, rec: LogRecord) -> bool:
        """Are they those of this record, which names the same server?"""
        return (
            self.status == rec.status
            and (self.end is rec.end or self.end == rec.end)
            and (self.pool is rec.pool or self.pool == rec.pool)
        )


def _tries(tries: Sequence[Try]) -> str:
    items = [
        f'{{"server":{_json_string(_capped(server))},"reason":"{reason}","ms":{_milliseconds(seconds)}}}'
        for server, reason, seconds in tries
    ]
    return f',"tries":[{",".join(items)}]'


def _is_zero(seconds: float | None) -> bool:
    return seconds is not None and seconds * 1e6 < 0.5


def _milliseconds(seconds: float | None) -> str:
    """To the microsecond; in integers, which is half the cost of `%.3f`."""
    if seconds is None:
        return "null"
    us: i64 = int(seconds * 1e6 + 0.5)
    return f"{_number(us // 1000)}{_MILLIS[us % 1000]}"


def _number(number: i64) -> str:
    return _NUMBERS[number] if 0 <= number < _N_NUMBERS else str(number)


_N_NUMBERS: Final = 2048
_NUMBERS: Final = tuple(str(number) for number in range(_N_NUMBERS))
_NUMBERS_IN: Final = tuple(f'{number},"bytes_out":' for number in range(_N_NUMBERS))
_MILLIS: Final = tuple(f".{ms:03d}" for ms in range(1000))
_MILLIS_OF_TTFB: Final = tuple(f'.{ms:03d},"total_ms":' for ms in range(1000))
_TCP_HEAD: Final[HeadPart] = ('"method":null,"host":null,"target":null,"protocol":"tcp"', "null")


class ApacheFormat(LogFormat):
    """Apache's `common` (host ident user [time] "request" status bytes), or `combined` with referer and agent.

    Escaped as mod_log_config does it. Besides, a space in the parts of the request line is escaped, so that they can be
    told apart.
    """

    __slots__ = ("_combined", "_second", "_stamp")

    def __init__(self, *, combined: bool = False) -> None:
        self._combined = combined
        self._second = -1
        self._stamp = ""

    def head_part(self, method: str, target: str, host: str, protocol: str, user_agent: str, referer: str) -> HeadPart:
        request = f'"{" ".join(wire_text.without_spaces(_capped(text)) for text in (method, target, protocol))}"'
        return request, f' "{_quoted(referer)}" "{_quoted(user_agent)}"' if self._combined else ""

    def with_subject(self, head_part: HeadPart, subject: str) -> HeadPart:
        return head_part  # these formats have no place for it

    def with_key(self, head_part: HeadPart, name: str) -> HeadPart:
        return head_part  # a name may have any letter, and the field of the user none that is not plain

    def line(self, rec: LogRecord) -> str:
        second = int(rec.wall)
        if second != self._second:
            self._second = second
            self._stamp = _apache_time(second)
        request, tail = rec.log_head
        if not request:
            request, tail = '"-"', ' "-" "-"' if self._combined else ""
        status, client = rec.status or "-", wire_text.without_spaces(_capped(rec.client))
        return f"{client} - - [{self._stamp}] {request} {status} {rec.bytes_out or '-'}{tail}"


_MONTHS: Final[tuple[str, ...]] = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def _apache_time(second: int) -> str:
    """23/Nov/2026:22:02:09 +0000; the month is English whatever the locale says."""
    t = time.gmtime(second)
    return f"{t.tm_mday:02d}/{_MONTHS[t.tm_mon - 1]}/{t.tm_year}:{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} +0000"


def _quoted(text: str) -> str:
    """A field that is "-" where it is absent, so a real "-" is escaped."""
    return "\\x2d" if text == "-" else wire_text.quotable(_capped(text)) or "-"
