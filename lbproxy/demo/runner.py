"""`lbproxy demo`: three predict servers and lbproxy in front of them, until Ctrl-C, SIGTERM or SIGHUP.

Rules: nothing that was started outlives the runner, on Linux not even when it gets SIGKILL. A predict server that dies
is reported and left dead, because losing one is what the demo is for; without lbproxy there is no demo, so it ends.
lbproxy is stopped before the servers, so that requests in flight still find them.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import select
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from lbproxy._client import reachable
from lbproxy.address import Address, parse_address
from lbproxy.demo import children
from lbproxy.demo.children import Child

SERVERS = 3
PROXY = "lbproxy"
DEFAULT_BIND = Address("127.0.0.1", 5000)
DEFAULT_ADMIN = Address("127.0.0.1", 8404)
BUNDLED_CONFIG = Path(__file__).with_name("demo.yaml")
PROXY_GRACE_S = 30.0  # above lbproxy's own default of 25 s
SERVER_GRACE_S = 8.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
BACKLOG = 128


class DemoError(Exception):
    """The demo cannot start. The text is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start.

    servers: HOST:FIRST-LAST, or HOST:0 for free ports. bind, admin: the proxy's addresses; port 0 takes a free one.
    config: a file to use in place of the bundled one; then bind and admin are what that file says.
    """

    servers: str = "127.0.0.1:0"
    bind: Address = DEFAULT_BIND
    admin: Address = DEFAULT_ADMIN
    config: Path = BUNDLED_CONFIG


def server_addresses(text: str) -> list[Address]:
    """Three addresses from `HOST:5001-5003`, or three times a free port from `HOST:0`. Raises DemoError."""
    host, _, ports = text.rpartition(":")
    first_text, dash, last_text = ports.partition("-")
    try:
        first = parse_address(f"{host}:{first_text}", default_host="127.0.0.1")
        last = parse_address(f"{host}:{last_text}", default_host="127.0.0.1") if dash else first
    except ValueError as error:
        raise DemoError(f"--servers {text}: {error}") from None
    if not dash and first.port == 0:
        return [first] * SERVERS
    if last.port - first.port != SERVERS - 1 or first.port == 0:
        raise DemoError(f"--servers {text}: name {SERVERS} ports, as in 127.0.0.1:5001-5003")
    return [Address(first.host, port) for port in range(first.port, last.port + 1)]


def listen(address: Address, option: str) -> socket.socket:
    """A listening socket, so that nobody can take the port between choosing it and using it. Raises DemoError."""
    if address.is_unix:
        raise DemoError(f"{option} {address}: the demo wants host:port")
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise DemoError(f"{address} is in use: choose another address with {option}") from None
        raise DemoError(f"cannot listen on {address} ({option}): {error.strerror or error}") from None
    return sock


def bound_address(sock: socket.socket) -> Address:
    host, port = sock.getsockname()[:2]
    return Address(str(host), int(port))


def accepts(address: Address) -> bool:
    """Whether a connection to the address succeeds now."""
    try:
        socket.create_connection((address.host, address.port), timeout=1.0).close()
    except OSError:
        return False
    return True


def find_missing(names: Sequence[str], find: Callable[[str], object | None] = importlib.util.find_spec) -> list[str]:
    return [name for name in names if find(name) is None]


def missing_packages() -> list[str]:
    """What `pip install lbproxy` alone does not bring."""
    return find_missing(("flask", "gunicorn"))


def server_command(fd: int) -> list[str]:
    return [
        sys.executable,
        "-m",
        "gunicorn",
        "--config",
        "python:lbproxy.demo.gunicorn_settings",
        "--bind",
        f"fd://{fd}",
        "lbproxy.demo.app:app",
    ]


FLOWERS = '{"instances": [[5.1, 3.5, 1.4, 0.2], [6.3, 2.9, 5.6, 1.8]]}'


def own_command(which: Callable[[str], str | None] = shutil.which) -> str:
    """How a shell calls this lbproxy: by its name only if that finds this one and no other."""
    script = Path(sys.executable).with_name("lbproxy")
    found = which("lbproxy")
    if found is not None and Path(found).resolve() == script.resolve():
        return "lbproxy"
    return shlex.quote(str(script)) if script.exists() else f"{shlex.quote(sys.executable)} -m lbproxy"


def fetch_command(url: str, body: str = "", which: Callable[[str], str | None] = shutil.which) -> str:
    """How a shell asks for a URL: with curl, or with this Python where there is none."""
    if which("curl") is not None:
        return f"curl {url}" + (f" -H 'Content-Type: application/json' -d {shlex.quote(body)}" if body else "")
    data = f", {body.encode()!r}, {{'Content-Type': 'application/json'}}" if body else ""
    code = f"from urllib.request import *; print(urlopen(Request({url!r}{data})).read().decode())"
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}"


def what_to_try(bind: Address, admin: Address, servers: Sequence[Child], pid: int) -> str:
    """The page that the demo prints: what it is and commands to copy. bind, admin: as they are bound."""
    to, asked = reachable(bind), reachable(admin)
    everywhere = "" if to == bind else f", that is on every address of this machine, here {to},"
    return "\n".join(
        (
            f"lbproxy (pid {pid}) listens on {bind}{everywhere} and balances over:",
            *(f"  {server.name} (pid {server.pid})" for server in servers),
            "",
            "Try this in another terminal:",
            f"  {fetch_command(f'http://{to}/predict', FLOWERS)}",
            f"  {fetch_command(f'http://{asked}/metrics')}",
            f"  {own_command()} status --admin {asked}",
            f"  kill -9 {servers[0].pid}     # requests go on without it",
            "",
            "Ctrl-C stops everything.",
        )
    )


class _Signals:
    """Signals as bytes on a pipe, so that one `select` waits for Ctrl-C and for the end of a child alike."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._previous_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._previous = {number: signal.signal(number, self._ignore) for number in (*STOP_SIGNALS, signal.SIGCHLD)}

    @staticmethod
    def _ignore(_number: int, _frame: FrameType | None) -> None:
        """The byte on the pipe says it all."""

    def wait(self, timeout_s: float | None = None) -> set[int]:
        """The signals that came; empty after a time-out."""
        ready, _, _ = select.select([self._read], [], [], timeout_s)
        return set(os.read(self._read, 1024)) if ready else set()

    def close(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_fd)
        os.close(self._read)
        os.close(self._write)


@contextlib.contextmanager
def signals() -> Iterator[_Signals]:
    watched = _Signals()
    try:
        yield watched
    finally:
        watched.close()


def _start_servers(addresses: Sequence[Address], started: list[Child]) -> list[tuple[Child, Address]]:
    """Start a predict server for each address; each is appended to `started` at once."""
    servers: list[tuple[Child, Address]] = []
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(listen(address, "--servers")) for address in addresses]
        for sock in sockets:
            address = bound_address(sock)
            child = children.start(
                f"predict server {address}",
                server_command(sock.fileno()),
                fds=[sock.fileno()],
                orphan_signal=signal.SIGKILL,
            )
            started.append(child)
            servers.append((child, address))
    # Leaving the block closes the runner's copies: the port of a server that dies must refuse, not hang.
    return servers


def proxy_environ(
    inherited: Mapping[str, str], servers: Sequence[Address], bind: Address, admin: Address
) -> dict[str, str]:
    """The environment of lbproxy, with the variables that the bundled config takes its addresses from."""
    numbered = {f"LBPROXY_DEMO_SERVER_{number}": str(address) for number, address in enumerate(servers, start=1)}
    return {**inherited, "LBPROXY_DEMO_BIND": str(bind), "LBPROXY_DEMO_ADMIN": str(admin), **numbered}


def _start_proxy(plan: Plan, servers: Sequence[Address], bind: Address, admin: Address) -> Child:
    command = [sys.executable, "-P", "-m", "lbproxy", "run", "--config", str(plan.config)]
    return children.start(PROXY, command, environ=proxy_environ(os.environ, servers, bind, admin))


def _say(text: str) -> None:
    print(text, flush=True)


def _watch(proxy: Child, servers: list[Child], watched: _Signals, bind: Address, page: str) -> int:
    """Print the page once lbproxy accepts, then wait for the end. Returns the exit status."""
    is_open = False
    while True:
        if watched.wait(None if is_open else 0.05) & set(STOP_SIGNALS):
            return 0
        for server in [server for server in servers if server.has_ended]:
            servers.remove(server)
            server.end_group()
            _say(f"{server.name} {server.how_it_ended}; {len(servers)} of {SERVERS} are left")
        if proxy.has_ended:
            print(f"lbproxy {proxy.how_it_ended}: the demo ends", file=sys.stderr)
            return max(proxy.process.returncode, 0) or 1
        if not is_open and accepts(bind):
            is_open = True
            _say(page)


def _stop(started: Sequence[Child], watched: _Signals) -> None:
    """lbproxy first, then the servers. One more Ctrl-C ends what still runs at once."""

    def pause(seconds: float) -> bool:
        return bool(watched.wait(seconds) & set(STOP_SIGNALS))

    children.stop([child for child in started if child.name == PROXY], PROXY_GRACE_S, pause=pause)
    children.stop([child for child in started if child.name != PROXY], SERVER_GRACE_S, pause=pause)


def run(plan: Plan) -> int:
    """Run the demo to its end. Returns 0 after a signal, 1 if it could not start, else lbproxy's own failure status."""
    missing = missing_packages()
    if missing:
        print(f"the demo needs {' and '.join(missing)}: pip install 'lbproxy[demo]'", file=sys.stderr)
        return 1
    started: list[Child] = []
    with signals() as watched:
        try:
            # Held until the servers have their ports, or one of them would be given lbproxy's.
            with listen(plan.bind, "--bind") as held, listen(plan.admin, "--admin") as held_admin:
                bind, admin = bound_address(held), bound_address(held_admin)
                _say(f"starting {SERVERS} predict servers (gunicorn and Flask)")
                servers = _start_servers(server_addresses(plan.servers), started)
            _say(f"starting lbproxy before {', '.join(str(address) for _, address in servers)}")
            proxy = _start_proxy(plan, [address for _, address in servers], bind, admin)
            started.append(proxy)
            processes = [child for child, _ in servers]
            page = what_to_try(bind, admin, processes, proxy.pid)
            return _watch(proxy, processes, watched, reachable(bind), page)
        except DemoError as error:
            print(f"lbproxy demo: {error}", file=sys.stderr)
            return 1
        finally:
            _stop(started, watched)
