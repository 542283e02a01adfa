"""The command line's side of the admin API: one request, one answer, over TCP or a unix socket.

http.client is enough: these are single short requests made by a person or a container's probe, and the standard
library starts in a tenth of the time of an HTTP package.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass

from lbproxy.address import Address

# A status page of ten thousand servers is below 4 MB; more than this is not lbproxy's answer.
ANSWER_LIMIT_BYTES = 16 << 20
EVENTS = "/api/v1/events"


class AdminError(Exception):
    """The admin address gave no usable answer. The text is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the status and the whole body."""

    status: int
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


class _UnixConnection(http.client.HTTPConnection):
    """HTTPConnection over a unix socket; the host name only fills the Host field."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self.timeout)
        try:
            sock.connect(self._path)
        except OSError:
            sock.close()
            raise
        self.sock = sock


def reachable(address: Address) -> Address:
    """The address to connect to for one to bind: a wildcard becomes loopback of the same family."""
    if address.host == "0.0.0.0":
        return Address("127.0.0.1", address.port)
    return Address("::1", address.port) if address.host == "::" else address


def _connection(address: Address, timeout_s: float) -> http.client.HTTPConnection:
    if address.is_unix:
        return _UnixConnection(address.sock_path, timeout_s)
    return http.client.HTTPConnection(address.host, address.port, timeout=timeout_s)


def get(address: Address, path: str, *, token: str | None = None, timeout_s: float = 5.0) -> Answer:
    """GET `path` from the admin address. Raises AdminError like `call`."""
    return call(address, "GET", path, token=token, timeout_s=timeout_s)


def call(
    address: Address, method: str, path: str, *, token: str | None = None, timeout_s: float = 5.0, body: object = None
) -> Answer:
    """One request to the admin address. body: sent as JSON, None: there is none.

    Raises AdminError if nothing answers, too late, or not in HTTP, and for a token that no header can carry.
    """
    headers = _headers(token, "application/json")
    data = None if body is None else json.dumps(body).encode()
    if data is not None:
        headers["Content-Type"] = "application/json"
    with _as_admin_error(address, timeout_s), closing(_connection(address, timeout_s)) as connection:
        connection.request(method, path, body=data, headers=headers)
        response = connection.getresponse()
        return Answer(response.status, response.read(ANSWER_LIMIT_BYTES))


def events(address: Address, *, token: str | None = None, timeout_s: float = 5.0) -> Iterator[tuple[str, object]]:
    """The messages of the event stream, each its name and its data, until lbproxy ends it.

    timeout_s: for an answer, and from each line to the next. Raises AdminError like `call`, also when it is cut.
    """
    with _as_admin_error(address, timeout_s), closing(_connection(address, timeout_s)) as connection:
        connection.request("GET", EVENTS, headers=_headers(token, "text/event-stream"))
        response = connection.getresponse()
        if response.status != 200:
            answer = Answer(response.status, response.read(ANSWER_LIMIT_BYTES))
            if answer.status == 503:
                raise AdminError(f"{address}: {_detail(answer) or 'it answered 503'}".strip())
            json_object(address, answer, f"GET {EVENTS}", ())
        name = ""
        while line := response.readline(ANSWER_LIMIT_BYTES):
            field, _, value = line.rstrip(b"\r\n").partition(b": ")
            if field == b"event":
                name = value.decode("utf-8", "replace")
            elif field == b"data":
                yield name, json.loads(value)


def _headers(token: str | None, accept: str) -> dict[str, str | bytes]:
    headers: dict[str, str | bytes] = {"Accept": accept, "Connection": "close"}
    if token:
        headers["Authorization"] = b"Bearer " + _sendable(token)
    return headers


@contextmanager
def _as_admin_error(address: Address, timeout_s: float) -> Iterator[None]:
    """What goes wrong with a connection, as a sentence."""
    try:
        yield
    except TimeoutError:
        raise AdminError(f"{address} did not answer within {timeout_s:g} s") from None
    except (ConnectionRefusedError, FileNotFoundError):
        raise AdminError(f"nothing listens on {address}: is lbproxy running, and is this its admin.bind?") from None
    except OSError as error:
        raise AdminError(f"cannot talk to {address}: {error.strerror or error}") from None
    except http.client.IncompleteRead:
        raise AdminError(f"{address} broke off in the middle of its answer") from None
    except (http.client.HTTPException, ValueError) as error:  # ValueError: such as a length that is no number
        raise AdminError(f"{address} does not speak HTTP ({type(error).__name__}): is it the admin address?") from None


def _sendable(token: str) -> bytes:
    """The token's octets, as `lbproxy check` allows them (admin.token). Messages do not show it."""
    if any(not 33 <= ord(char) <= 126 for char in token):
        what = "ends with a line break" if token[-1] in "\r\n" else "holds a space, a control or a non-ASCII character"
        raise AdminError(f"the token (--token, LBPROXY_TOKEN or admin.token) {what}, which no header can carry")
    return token.encode()


def get_object(
    address: Address, path: str, *, token: str | None = None, timeout_s: float = 5.0
) -> Mapping[str, object]:
    """GET a JSON object. Raises AdminError also for another status than 200 or another kind of answer."""
    answer = get(address, path, token=token, timeout_s=timeout_s)
    return json_object(address, answer, f"GET {path}", (200,))


def json_object(address: Address, answer: Answer, asked: str, statuses: tuple[int, ...]) -> Mapping[str, object]:
    """The object in an answer to what was `asked`. Raises AdminError for another status or another kind of answer."""
    if answer.status in (401, 403):
        raise AdminError(
            f"{address} refused the call ({answer.status}): {_detail(answer)}pass its admin.token as --token or "
            "LBPROXY_TOKEN"
        )
    if answer.status not in statuses:
        raise AdminError(f"{address} answered {answer.status} to {asked}: is it lbproxy's admin address?")
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError):  # the second: a million brackets
        value = None
    if not isinstance(value, dict):
        raise AdminError(f"{address} answered {asked} with something other than a JSON object")
    return value


def _detail(answer: Answer) -> str:
    """What an answer says is wrong, and a space; "" if it says nothing."""
    try:
        told = json.loads(answer.body)
    except (ValueError, RecursionError):
        return ""
    detail = told.get("detail") if isinstance(told, dict) else None
    return f"{detail} " if isinstance(detail, str) else ""
