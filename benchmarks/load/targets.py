"""The programs under test: how each is found, configured, started and asked for its version."""

from __future__ import annotations

import functools
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.load import configs
from benchmarks.load.cases import FILES, Case, Mode
from benchmarks.load.errors import BenchmarkError
from benchmarks.load.processes import Process

_PACKAGES = {"ab": "apache2-utils", "haproxy": "haproxy", "nginx": "nginx-light", "openssl": "openssl", "wrk": "wrk"}
_TUNED = "_tuned"
FULL, BARE = "lbproxy_full", "lbproxy_bare"
_TWO = "_two"
_CASES_OF_TWO = ("http_real", "http_small", "tls_real")
_VERSION = re.compile(r"\d+\.\d+[\w.+~-]*")


class Unsupported(Exception):
    """This target cannot take this case; the text goes into the report."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Cores: the target's, and those of the backend and the load generator."""

    proxy: int
    load: frozenset[int]


@dataclass(frozen=True, slots=True)
class Nginx:
    """The nginx program and what was compiled into it; backend and peer are separate processes of it."""

    program: str
    temp_modules: tuple[str, ...] = field(default=())
    has_stream: bool = False
    stream_module: Path | None = None


@dataclass(frozen=True, slots=True)
class Setup:
    """What a proxy is to do: listen on `port` in `mode`, before `servers`, with its files in `directory`.

    pem: certificate and key in one file, if clients are to speak TLS. clients: how many connections
    of clients it must hold, if that is more than usual.
    """

    mode: Mode
    port: int
    servers: tuple[int, ...]
    directory: Path
    nginx: Nginx
    pem: Path | None = None
    clients: int = 0


def find_program(name: str) -> str:
    """Path of a program; /usr/sbin is searched too, which is not on every user's PATH."""
    path = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin")))
    if path is None:
        raise BenchmarkError(f"{name} is not installed; on Debian: apt-get install {_PACKAGES.get(name, name)}")
    return path


def inspect_nginx() -> Nginx:
    program = find_program("nginx")
    return parse_nginx_build(program, _output([program, "-V"]), Path.exists)


def parse_nginx_build(program: str, text: str, exists: Callable[[Path], bool]) -> Nginx:
    """Read `nginx -V`: which modules have directories for temporary files, and where the stream module is."""
    options = set(text.split())
    temp_modules = tuple(name for name in configs.TEMP_PATH_MODULES if f"--without-http_{name}_module" not in options)
    if "--with-stream" in options:
        return Nginx(program, temp_modules, has_stream=True)
    folder = next((option.partition("=")[2] for option in options if option.startswith("--modules-path=")), "")
    module = Path(folder, "ngx_stream_module.so")
    if "--with-stream=dynamic" in options and exists(module):
        return Nginx(program, temp_modules, has_stream=True, stream_module=module)
    return Nginx(program, temp_modules)


def make_pem(path: Path) -> Path:
    """A self-signed certificate for localhost with an ECDSA key on P-256, as most have today, both in one file."""
    request = ["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-newkey", "ec"]
    curve = ["-pkeyopt", "ec_paramgen_curve:P-256"]
    cert, key = path.with_suffix(".crt"), path.with_suffix(".key")
    done = subprocess.run(
        [find_program("openssl"), *request, *curve, "-keyout", key, "-out", cert],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    if done.returncode:
        raise BenchmarkError(f"openssl made no certificate: {done.stderr.strip()}")
    return _write(path, cert.read_text() + key.read_text())


def free_ports(count: int) -> list[int]:
    """Ports that the kernel had free a moment ago. Whoever takes one first is noticed by Process.check_owner."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


def start_backend(nginx: Nginx, ports: Sequence[int], directory: Path, placement: Placement) -> Process:
    directory.mkdir(mode=0o755)
    for path, content in FILES.items():
        (directory / path.removeprefix("/")).write_bytes(content)
    text = configs.render_backend(ports, directory, nginx.temp_modules)
    return Process("the backend", _nginx_argv(nginx, directory, text), set(placement.load), directory / "stderr")


def start_target(name: str, setup: Setup, placement: Placement) -> Process:
    """Start one proxy on its core, or on two. Raises Unsupported if it has no such mode here."""
    setup.directory.mkdir(mode=0o755)
    cores = {placement.proxy}
    if name.endswith(_TWO):
        cores.add(max(placement.load))
    return Process(name, _COMMANDS[name](setup), cores, setup.directory / "stderr")


def program_of(name: str) -> str:
    """The program behind a target: `haproxy_tuned` is haproxy."""
    return name.partition("_")[0]


def version(name: str) -> str:
    """Version as the program itself gives it."""
    name = program_of(name)
    if name == "lbproxy":
        text = _output([sys.executable, "-P", "-m", "lbproxy", "--version"])
    else:
        text = _output([find_program(name), "-v"])
    found = _VERSION.search(text)
    return found.group() if found else "unknown"


def _haproxy_command(setup: Setup, *, tuned: bool = False, threads: int = 1) -> list[str]:
    text = configs.render_haproxy(
        setup.mode, setup.port, setup.servers, tuned=tuned, pem=setup.pem, clients=setup.clients, threads=threads
    )
    return [find_program("haproxy"), "-db", "-f", str(_write(setup.directory / "haproxy.cfg", text))]


def _nginx_command(setup: Setup, *, tuned: bool = False) -> list[str]:
    nginx = setup.nginx
    if setup.mode == "tcp" and not nginx.has_stream:
        raise Unsupported("nginx has no stream module here (Debian: libnginx-mod-stream)")
    text = configs.render_nginx(
        setup.mode,
        setup.port,
        setup.servers,
        setup.directory,
        nginx.temp_modules,
        nginx.stream_module,
        tuned=tuned,
        pem=setup.pem,
        clients=setup.clients,
    )
    return _nginx_argv(nginx, setup.directory, text)


def _lbproxy_command(setup: Setup, extras: str = "", workers: int = 1) -> list[str]:
    (admin_port,) = free_ports(1)
    text = configs.render_lbproxy(
        setup.mode, setup.port, admin_port, setup.servers, extras, pem=setup.pem, workers=workers
    )
    return [sys.executable, "-P", "-m", "lbproxy", "--config", str(_write(setup.directory / "lbproxy.yaml", text))]


_COMMANDS: dict[str, Callable[[Setup], list[str]]] = {
    "lbproxy": _lbproxy_command,
    "haproxy": _haproxy_command,
    "nginx": _nginx_command,
    "haproxy_tuned": functools.partial(_haproxy_command, tuned=True),
    "nginx_tuned": functools.partial(_nginx_command, tuned=True),
    FULL: functools.partial(_lbproxy_command, extras="full"),
    BARE: functools.partial(_lbproxy_command, extras="bare"),
    f"lbproxy{_TWO}": functools.partial(_lbproxy_command, workers=2),
    f"haproxy{_TWO}": functools.partial(_haproxy_command, threads=2),
}
TARGETS = tuple(_COMMANDS)


def takes(name: str, case: Case) -> bool:
    """The tuned peers differ in what a large response costs, lbproxy's two other forms in what a small request does;
    they run in those cases only. So do those with two processes or threads, which have two cores.
    """
    if name.endswith(_TWO):
        return case.name in _CASES_OF_TWO
    if name in (FULL, BARE):
        return case.name == "http_small"
    return case.is_bulk or not name.endswith(_TUNED)


def _nginx_argv(nginx: Nginx, directory: Path, text: str) -> list[str]:
    config = _write(directory / "nginx.conf", text)
    return [nginx.program, "-p", str(directory), "-e", "stderr", "-c", str(config)]


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _output(argv: Sequence[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout + done.stderr
