"""The command line's side of the admin API: one request, one answer, over TCP or a unix socket.

http.client is enough: these are single short requests made by a person or a container's probe, and the standard
library starts in a tenth of the time of an HTTP package.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lbproxy.address import Address

# A status page of ten thousand servers is below 4 MB; more than this is not lbproxy's answer.
ANSWER_LIMIT_BYTES = 16 << 20


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
    """GET `path` from the admin address. Raises AdminError if nothing answers, too late, or not in HTTP."""
    headers = {"Accept": "application/json", "Connection": "close"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    connection = _connection(address, timeout_s)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        body = response.read(ANSWER_LIMIT_BYTES)
        return Answer(response.status, body)
    except TimeoutError:
        raise AdminError(f"{address} did not answer within {timeout_s:g} s") from None
    except (ConnectionRefusedError, FileNotFoundError):
        raise AdminError(f"nothing listens on {address}: is lbproxy running, and is this its admin.bind?") from None
    except OSError as error:
        raise AdminError(f"cannot talk to {address}: {error.strerror or error}") from None
    except http.client.HTTPException as error:
        raise AdminError(f"{address} does not speak HTTP ({type(error).__name__}): is it the admin address?") from None
    finally:
        connection.close()


def get_object(
    address: Address, path: str, *, token: str | None = None, timeout_s: float = 5.0
) -> Mapping[str, object]:
    """GET a JSON object. Raises AdminError also for another status than 200 or another kind of answer."""
    answer = get(address, path, token=token, timeout_s=timeout_s)
    if answer.status in (401, 403):
        raise AdminError(
            f"{address} refused the call ({answer.status}): pass its admin.token as --token or LBPROXY_TOKEN"
        )
    if answer.status != 200:
        raise AdminError(f"{address} answered {answer.status} to GET {path}: is it lbproxy's admin address?")
    try:
        value = json.loads(answer.body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise AdminError(f"{address} answered GET {path} with something other than a JSON object")
    return value


COLUMNS = ("SERVER", "ADDRESS", "STATE", "WEIGHT", "IN FLIGHT", "REQUESTS", "ERRORS", "LATENCY", "WHY")
_NUMBERS = range(3, 8)  # these columns are aligned to the right


def _objects(value: object) -> list[Mapping[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _shown(value: object) -> str:
    return "-" if value is None else str(value)


def _latency(value: object) -> str:
    """Seconds as a person reads them. 0 means that no answer was measured yet."""
    if not isinstance(value, (int, float)) or value <= 0:
        return "-"
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def _server_row(server: Mapping[str, object]) -> tuple[str, ...]:
    inflight, limit = _shown(server.get("inflight")), server.get("max_inflight")
    return (
        *(_shown(server.get(key)) for key in ("name", "address", "state", "weight")),
        f"{inflight}/{limit}" if limit else inflight,
        *(_shown(server.get(key)) for key in ("requests", "errors")),
        _latency(server.get("latency")),
        _shown(server.get("why") or ""),
    )


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[index]) for row in rows) for index in range(len(COLUMNS))]
    return [
        "  ".join(
            cell.rjust(width) if index in _NUMBERS else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def status_table(status: Mapping[str, object]) -> str:
    """The status of the admin API as a page for a terminal: the process, its listeners, a table for every pool."""
    uptime = status.get("uptime")
    since = f", up {uptime:.0f} s" if isinstance(uptime, (int, float)) else ""
    reason = status.get("reason")
    lines = [f"lbproxy {_shown(status.get('version'))}{since}: {reason or 'ready'}"]
    for listener in _objects(status.get("listeners")):
        name, mode, count = (_shown(listener.get(key)) for key in ("name", "mode", "connections"))
        lines.append(f"listener {name} ({mode}): client connections {count}")
    for pool in _objects(status.get("pools")):
        servers = _objects(pool.get("servers"))
        name, strategy, usable = (_shown(pool.get(key)) for key in ("name", "strategy", "usable"))
        lines += ["", f"pool {name} ({strategy}): {usable} of {len(servers)} usable"]
        lines += _aligned([COLUMNS, *(_server_row(server) for server in servers)])
    return "\n".join(lines)
