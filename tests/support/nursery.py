"""Daemons at a tenth of the price: a process that has imported the installed lbproxy forks for each that is wanted.

Half a second of CPU goes into the imports of each start, which is most of what many a scenario costs. What is forked
runs the same `main` of the same installed package, in a process of its own, with its own descriptors, environment,
directory and limits. What is about the start itself starts the command, and so does everything with NURSERY=no. What is
forked ends without taking the interpreter apart, and what is executed ends as users see it.

This file is also the program that forks: `python -P nursery.py`, one for each process that runs tests. It ends its
daemons and itself when that process is gone, and the kernel ends them when it was killed itself.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_MAX_MESSAGE = 1 << 20
_PATIENCE_S = 60.0
_SAMPLE = """
listeners: [{bind: "127.0.0.1:0", pool: p}]
pools: {p: {servers: ["127.0.0.1:1", {address: "127.0.0.1:2", weight: 2}], health_check: /healthz}}
"""
_UNIMPORTABLE = ("PYTHON", "LD_", "MALLOC_", "GLIBC_")  # variables that count when a process starts, and not later


class Nursling:
    """A process that the nursery forked. What tests use of `subprocess.Popen`, with the same meaning."""

    def __init__(self, pid: int, life: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._life = life
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"nursling {self.pid}", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Nothing once it has ended: its id may be another's."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def _ended(self, timeout_s: float | None) -> int | None:
        with self._lock:
            if self.returncode is None:
                life = select.poll()  # descriptors of tests may be too many for select
                life.register(self._life, select.POLLIN)
                if life.poll(None if timeout_s is None else timeout_s * 1000):
                    # Nothing is said where the nursery was killed: then the kernel has ended this process.
                    self.returncode = int(self._life.recv(64) or -signal.SIGKILL)
                    self._life.close()
            return self.returncode


class Nursery:
    """The forking process, seen from the tests."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._control = ours
        self._lock = threading.Lock()

    def start(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str],
        *,
        stdout: int,
        stderr: int,
        folder: Path,
        nofile: int = 0,
        stdin: int | None = None,
        script: Path | None = None,
    ) -> Nursling:
        """See `start` of the module."""
        order = {
            "argv": [*arguments],
            "env": {**os.environ, **env},
            "cwd": str(folder),
            "nofile": nofile,
            "script": "" if script is None else str(script),
        }
        life, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fds = [theirs.fileno(), stdout, stderr, *([] if stdin is None else [stdin])]
        with theirs, self._lock:
            socket.send_fds(self._control, [json.dumps(order).encode()], fds)
        life.settimeout(_PATIENCE_S)
        pid = int(life.recv(64))
        life.settimeout(None)
        return Nursling(pid, life)

    def kill(self) -> None:
        """SIGKILL, as by somebody who ends whatever a run of tests has left."""
        self._process.kill()
        self._process.wait(_PATIENCE_S)
        self._control.close()

    def close(self) -> None:
        self._control.close()
        self._process.wait(_PATIENCE_S)


_nursery: Nursery | None = None
_start = threading.Lock()


def can_start(env: Mapping[str, str]) -> bool:
    """Is a forked process what a start with these additional variables would give?"""
    return os.environ.get("NURSERY") != "no" and not any(name.startswith(_UNIMPORTABLE) for name in env)


def start(
    arguments: Sequence[str],
    env: Mapping[str, str],
    *,
    stdout: int,
    stderr: int,
    nofile: int = 0,
    folder: Path | None = None,
    stdin: int | None = None,
    script: Path | None = None,
) -> Nursling:
    """Like `lbproxy ARGUMENTS` in `folder`, or this one, with `env` on top of this environment, and below a limit of
    `nofile` descriptors if that is not 0. Without `stdin` there is nothing to read.
    script: runs this instead, which may import what lbproxy has, as if it had been executed.
    """
    global _nursery
    with _start:
        if _nursery is None:
            _nursery = Nursery()
            atexit.register(_nursery.close)
    return _nursery.start(
        arguments,
        env,
        stdout=stdout,
        stderr=stderr,
        nofile=nofile,
        folder=folder or Path.cwd(),
        stdin=stdin,
        script=script,
    )


def run(
    arguments: Sequence[str],
    folder: Path,
    env: Mapping[str, str] | None = None,
    given: str = "",
    timeout_s: float = _PATIENCE_S,
) -> subprocess.CompletedProcess[str]:
    """`lbproxy ARGUMENTS` until it ends, with `given` on standard input. What it says goes to files, not to a terminal.

    Raises subprocess.TimeoutExpired, when it has been killed.
    """
    more = env or {}
    with tempfile.TemporaryFile("w+") as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        stdin.write(given)
        stdin.seek(0)
        if can_start(more):
            started = start(
                arguments,
                more,
                folder=folder,
                stdin=stdin.fileno(),
                stdout=stdout.fileno(),
                stderr=stderr.fileno(),
            )
            try:
                status = started.wait(timeout_s)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()
                raise
        else:
            status = subprocess.run(
                [sys.executable, "-P", "-m", "lbproxy", *arguments],
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=folder,
                env={**os.environ, **more},
                timeout=timeout_s,
                check=False,
            ).returncode
        stdout.seek(0)
        stderr.seek(0)
        said, complained = stdout.read().decode(), stderr.read().decode()
    return subprocess.CompletedProcess(["lbproxy", *arguments], status, said, complained)


# --- the process that forks ---


def _serve(control: socket.socket) -> str:
    """Fork on order and tell how each child ended, until nobody gives orders. Returns in a child: its script, or ""."""
    from lbproxy.demo.children import end_with_parent

    nursery = os.getpid()
    lives: dict[int, socket.socket] = {}
    woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    events = select.poll()
    events.register(control, select.POLLIN)
    events.register(woken, select.POLLIN)
    while True:
        ready = [fd for fd, _ in events.poll()]
        if woken in ready:
            os.read(woken, 4096)
            _tell(lives)
        if control.fileno() not in ready:
            continue
        message, fds, _, _ = socket.recv_fds(control, _MAX_MESSAGE, 4)
        if not message:
            for pid in lives:
                os.kill(pid, signal.SIGKILL)
            raise SystemExit
        order = json.loads(message)
        pid = os.fork()
        if pid == 0:
            end_with_parent(signal.SIGKILL, nursery)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for held in (control, *lives.values()):
                held.detach()  # or it would close what has its number by then
            return _become(order, *fds[1:])
        lives[pid] = socket.socket(fileno=fds[0])
        for fd in fds[1:]:
            os.close(fd)
        lives[pid].send(b"%d" % pid)


def _tell(lives: dict[int, socket.socket]) -> None:
    while lives:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with lives.pop(pid) as life, contextlib.suppress(BrokenPipeError):
            life.send(b"%d" % os.waitstatus_to_exitcode(status))


def _become(order: dict[str, object], stdout: int, stderr: int, stdin: int = 0) -> str:
    """Make this process what the order says; it has no descriptor of the nursery's then. Returns the script."""
    os.dup2(stdin, 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.closerange(3, 1 << 16)
    # As the interpreter makes them when it starts: what they are depends on what they write to.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    environ, nofile, argv, script = order["env"], order["nofile"], order["argv"], order["script"]
    assert isinstance(environ, dict) and isinstance(nofile, int) and isinstance(argv, list) and isinstance(script, str)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(str(order["cwd"]))
    if nofile:
        resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, nofile))
    sys.argv[1:] = argv
    if script:
        sys.argv[0] = script
        sys.orig_argv = [sys.executable, "-P", *sys.argv]
    return script


def _warm_up(main: Callable[[list[str]], int]) -> None:
    """Have what a first call compiles and looks up (patterns, validators, codecs) here, once: 8 ms for each daemon."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file, contextlib.redirect_stdout(io.StringIO()) as said:
        file.write(_SAMPLE)
        file.flush()
        if main(["check", file.name]):
            raise RuntimeError(said.getvalue())


def _leave(status: int) -> None:
    """End as what multiprocessing has forked does; return where a stream takes no more, which the interpreter tells.

    To take the interpreter apart is a third to a half of all CPU of a daemon that serves a few requests (25 ms): nearly
    each page is the nursery's and is copied for it. What comes before it happens: threads are waited for, exit handlers
    run, and the collector is heard that finds a task or a coroutine that nobody awaited.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.collect()
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except (OSError, ValueError):
        return
    os._exit(status)


def _main() -> int:
    from lbproxy.cli import main
    from lbproxy.config import loader  # noqa: F401  what the command imports when it runs
    from lbproxy.process import rehearsal, worker  # noqa: F401
    from lbproxy.process.workers import cores, foreground  # noqa: F401

    _warm_up(main)
    # What is imported is no garbage: else each daemon looks through all of it when it starts, and so copies its pages.
    gc.collect()
    gc.freeze()
    script = _serve(socket.socket(fileno=int(sys.argv[1])))
    try:
        if script:
            runpy.run_path(script, run_name="__main__")  # ends with SystemExit
        status = main()
    except SystemExit as ended:
        if not isinstance(ended.code, int):
            raise
        status = ended.code
    _leave(status)
    return status


if __name__ == "__main__":
    sys.exit(_main())
