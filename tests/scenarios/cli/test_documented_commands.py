"""Every command on the pages does what its page says, with the lbproxy that is installed.

Ports and files of a page are moved to free ports and a folder of the test's own; nothing else of a command is changed.
Commands that need a shell, and those that serve, are started; the many that are lbproxy and its arguments are given to
the same program, which has been imported already (tests/support/nursery.py).
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lbproxy.api_keys import hash_of
from tests.architecture.test_deployment import command_lines
from tests.support import nursery
from tests.support.daemon import START_S, STOP_S
from tests.support.origin import Origin
from tests.support.pages import PAGES, blocks, inline_code, move_ports, name
from tests.support.ports import consecutive_ports
from tests.support.waiting import wait_until

# First words of a command; a single word is a name and no command.
PROGRAMS = (
    r"(?:[A-Z_]+=\S+ )?(?:\S+/)?(?:lbproxy|curl|gunicorn|uvicorn|pip|python3?|make|docker|sudo|systemctl|journalctl|apt"
    r"|kill|ulimit|promtool|openssl|ss|bash|for) \S"
)
# What no test can run as it stands, and why. Whatever else is on a page is run.
NOT_HERE = {
    "make ": "tests/architecture/test_docs.py looks whether the target exists; tests/scenarios/make runs what it can",
    r"(sudo|systemctl|journalctl) ": "needs root and systemd",
    r"python -m benchmarks\.": "is of a checkout; tests/scenarios/shared, unit/domain/test_simulation.py run it",
    "docker ": "needs Docker; tests/scenarios/deploy/test_image.py performs the steps of the image",
    r"(\S+=\S+ )?(\S+/)?pip install|python3 -m venv|apt ": "installs from an index",
    "openssl s_client -connect HOST": "asks a machine of the reader's",
    "(kubectl|helm|aws) ": "asks a cluster or a cloud; tests/architecture checks the chart and the stacks",
    "ssh ": "goes to a machine of the reader's",
    "ss ": "is a tool of the system, which may be without it",
    r"kill -9$": "says how, not which process; the demo's own tests kill one",
}
PYTHON_APPS = {
    "app.py": "def app(environ, start):\n    start('200 OK', [('Content-Length', '0')])\n    return []\n",
    "asgi.py": "async def app(scope, receive, send):\n    pass\n",
}
ONE_POOL = "listeners: [{bind: 127.0.0.1:5000, pool: predict}]\npools: {predict: {servers: [127.0.0.1:5001]}}\n"
BIN = Path(sys.executable).parent  # of the installed command
PORTS = (5000, 5001, 5002, 5003, 5004, 8404)


def commands(page: str) -> Iterator[str]:
    """Commands in blocks of shell, behind a prompt, at the start of a line where no language is named, in the prose."""
    for block in blocks(page):
        if block.info == "sh":
            text = re.sub(r"(?ms)^for .*?^done$", lambda loop: loop[0].replace("\n", " "), block.text)
            yield from (line for line in text.splitlines() if line)
        elif block.info in ("console", ""):
            yield from re.findall(r"(?m)^\$ (.+)$", block.text)
            yield from re.findall(r"(?m)^lbproxy (?!\d).+$", block.text)
    for code in inline_code(page):
        if re.match(PROGRAMS, code) and not re.match(r"lbproxy \d", code):
            yield code


def is_run_elsewhere(command: str) -> bool:
    return any(re.match(pattern, command) for pattern in NOT_HERE)


def collected() -> dict[str, str]:
    """Each command once, with the first page that shows it."""
    found: dict[str, str] = {}
    for page in PAGES:
        for line in commands(page.read_text()):
            command = re.sub(r"\s+# .*", "", line).removesuffix(";").strip()
            for placeholder, word in (("COMMAND", "check"), ("FILE", "lb.yaml"), ("venv/bin/", "")):
                command = command.replace(placeholder, word)
            found.setdefault(command, name(page))
    return found


ALL = collected()
HERE = {command: page for command, page in ALL.items() if not is_run_elsewhere(command)}
SERVES = re.compile(r"lbproxy (lb\.yaml|-c|demo|run (?!--to$|.*--print))")
SERVER = re.compile(r"gunicorn|uvicorn|for ")
CHANGES = re.compile(r"lbproxy (drain|ready|maint|weight|limit|add|remove) \S+/\S")
SPLITS = re.compile(r"lbproxy split( |$)")
EXAMINES = re.compile(r"lbproxy doctor \S+\.yaml")
KEYS = re.compile(r"lbproxy key new \S+ --file ")
COMMANDS = (
    "run|check|test|doctor|demo|schema|explain|completion|top|reload|drain|ready|maint|weight|limit|add|remove"
    "|key( new)?"
)
QUESTIONS = "status|upgrade|explain|completion servers|healthcheck|reload --dry-run|top --once"
ASKS = re.compile(rf"curl|lbproxy ({QUESTIONS})|{CHANGES.pattern}")
NAMES = re.compile(rf"lbproxy ({COMMANDS})( --to)?$")  # how the prose names a command
KINDS = (SERVES, SERVER, ASKS, SPLITS, EXAMINES, KEYS, NAMES)


@dataclass
class Machine:
    """A folder and free ports that stand for the reader's."""

    folder: Path
    ports: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        first = consecutive_ports(len(PORTS))
        self.ports = {port: first + number for number, port in enumerate(PORTS)}
        readme = next(page for page in PAGES if page.name == "README.md").read_text()
        smallest = next(block.text for block in blocks(readme) if block.info == "yaml")
        test = "tests: [{request: /, expect: {pool: predict}}]\n"
        (self.folder / "lb.yaml").write_text(self.moved(f"{smallest}admin: 127.0.0.1:8404\n{test}"))
        for file, text in PYTHON_APPS.items():
            (self.folder / file).write_text(text)

    def moved(self, text: str) -> str:
        return move_ports(text, self.ports)

    def shell(self, command: str) -> list[str]:
        return ["bash", "-c", self.moved(command)]

    @property
    def admin(self) -> dict[str, str]:
        """`status` without an option asks 8404, which may be somebody else's."""
        return {"LBPROXY_ADMIN": f"127.0.0.1:{self.ports[8404]}"}

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **self.admin}

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        if re.match(r"lbproxy [^$<>|&;`]*$", command):
            return nursery.run(shlex.split(self.moved(command))[1:], self.folder, self.admin)
        return subprocess.run(
            self.shell(command),
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )

    @contextmanager
    def running(self, command: str) -> Iterator[subprocess.Popen[bytes]]:
        """A command that does not end by itself, in a group of its own, of which nothing is left."""
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                self.shell(command), stdout=log, stderr=log, cwd=self.folder, env=self.env, start_new_session=True
            )
        try:
            yield process
        finally:
            # Of servers, and of an lbproxy that was upgraded, others are left when the first has ended.
            if process.poll() is None or SERVER.match(command) or SERVES.match(command.removeprefix("exec ")):
                with suppress(ProcessLookupError):  # all have ended
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @property
    def log(self) -> Path:
        return self.folder / "output.log"

    def wait_said(self, text: str, process: subprocess.Popen[bytes]) -> None:
        def said() -> bool:
            assert process.poll() is None, self.log.read_text()
            return text in self.log.read_text()

        wait_until(said, f"{process.args!r} to say {text!r}", START_S)

    def wait_listens(self, port: int) -> None:
        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.ports[port])) == 0

        wait_until(listens, f"a server on port {port}", START_S)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def of(pattern: re.Pattern[str]) -> list[str]:
    return [command for command in HERE if pattern.match(command)]


OTHERS = [command for command in HERE if not any(kind.match(command) for kind in KINDS)]


@pytest.mark.parametrize("command", OTHERS)
def test_a_command_that_ends_by_itself_ends_well(command: str, machine: Machine) -> None:
    done = machine.run(command)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", of(NAMES))
def test_a_command_that_is_only_named_exists(command: str, machine: Machine) -> None:
    words = command.split(" ")
    done = machine.run(" ".join([*words[:2], "--help"]))
    assert (done.returncode, done.stderr) == (0, "")
    assert [word for word in words[1:] if word not in done.stdout] == []


@pytest.mark.parametrize("command", of(SERVES))
def test_a_command_that_serves_serves_until_it_is_stopped(command: str, machine: Machine) -> None:
    if command.endswith("demo"):  # its defaults are the machine's real ports
        command += " --bind 127.0.0.1:5000 --admin 127.0.0.1:8404"
    with machine.running(f"exec {command}") as process:
        machine.wait_said("Ctrl-C stops everything" if "demo" in command else "ready", process)
        machine.wait_listens(5000)
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_S) == 0, machine.log.read_text()


DEPLOYED = {place: " ".join(["lbproxy", *words]) for place, words in command_lines()}


@pytest.mark.parametrize("place", [place for place, command in DEPLOYED.items() if "lbproxy run" in command])
def test_what_a_deployment_file_starts_serves(place: str, machine: Machine) -> None:
    command = DEPLOYED[place].replace("/etc/lbproxy/lbproxy.yaml", "lb.yaml")
    assert "lb.yaml" in command
    with machine.running(f"exec {command}") as process:
        machine.wait_said("ready", process)
        assert machine.run(DEPLOYED["Dockerfile HEALTHCHECK"]).returncode == 1  # its servers are not there
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_S) == 0, machine.log.read_text()


@pytest.mark.parametrize("command", of(SERVER))
def test_a_command_that_starts_servers_starts_them(command: str, machine: Machine) -> None:
    ports = [int(port) for port in re.findall(r"\b500\d\b", command)]
    assert ports
    with machine.running(command):
        for port in ports:
            machine.wait_listens(port)


@contextmanager
def one_lbproxy(machine: Machine, *, servers: bool, only: str = ONE_POOL) -> Iterator[None]:
    """README's smallest config, or, as the pages on trouble show it, a pool whose server is gone."""
    origin = Origin(port=machine.ports[5001]) if servers else None
    (machine.folder / "lb.yaml").write_text(machine.moved(f"{only}admin: 127.0.0.1:8404\n"))
    try:
        with machine.running("exec lbproxy lb.yaml") as process:
            machine.wait_listens(8404)
            expected = "0" if servers else "1"
            wait_until(lambda: str(machine.run("lbproxy healthcheck").returncode) == expected, "the first checks")
            yield
            process.send_signal(signal.SIGTERM)
            assert process.wait(STOP_S) == 0, machine.log.read_text()
    finally:
        if origin is not None:
            origin.close()


def shown() -> dict[str, str]:
    """What the pages show below each command behind a prompt, `curl` only."""
    found = {}
    for page in PAGES:
        for block in blocks(page.read_text()):
            for command, answer in re.findall(r"(?ms)\A\$ (curl [^\n]+)\n(.*)\Z", block.text):
                found[command] = answer
    return found


def alike(text: str) -> str:
    """Without what differs from one time to another."""
    text = re.sub(r"\b[0-9a-f]{32}\b", "ID", text.replace("\r", ""))
    return re.sub(r"(?m)^Date: .*$", "Date", re.sub(r"(?m)^Retry-After: \d+$", "Retry-After", text)).strip()


@pytest.mark.slow
def test_commands_that_ask_a_running_lbproxy_get_their_answer(machine: Machine) -> None:
    with one_lbproxy(machine, servers=True):
        for command in of(ASKS):
            done = machine.run(command)
            assert (done.returncode, done.stderr) == (0, ""), command
            assert done.stdout, command
            if CHANGES.match(command):  # the next one finds its server as it was
                assert machine.run("lbproxy ready 'predict/*'").returncode == 0
            if command.startswith("curl -si") and " 200 " in shown()[command]:
                assert done.stdout.splitlines()[0] == shown()[command].splitlines()[0]


@pytest.mark.slow
def test_splits_are_shown_and_changed(machine: Machine) -> None:
    page = (PAGES[0].parent / "docs/routing.md").read_text()
    [only] = [block.text for block in blocks(page) if block.info == "yaml" and "split:" in block.text]
    with one_lbproxy(machine, servers=True, only=only.replace("bind: :5000", "bind: 127.0.0.1:5000")):
        for command in of(SPLITS):
            done = machine.run(command)
            assert (done.returncode, done.stderr) == (0, ""), command
            assert done.stdout, command


@pytest.mark.slow
@pytest.mark.parametrize("command", of(EXAMINES))
def test_a_command_that_examines_servers_finds_them_well(command: str, machine: Machine) -> None:
    only = "listeners: [{bind: 127.0.0.1:5000, pool: predict}]\npools: {predict: {servers: [127.0.0.1:5001]}}\n"
    (machine.folder / "lb.yaml").write_text(machine.moved(only))
    origin = Origin(port=machine.ports[5001])
    try:
        done = machine.run(command)
    finally:
        origin.close()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"pool predict\n  127.0.0.1:{machine.ports[5001]}: ")


@pytest.mark.parametrize("command", of(KEYS))
def test_a_command_that_makes_a_key_shows_it_once_and_keeps_its_hash(command: str, machine: Machine) -> None:
    done = machine.run(command.replace("lb.yaml", "keys.txt"))
    assert (done.returncode, done.stderr.count("shown only this once")) == (0, 1)
    name, _, file = command.removeprefix("lbproxy key new ").split()
    [line] = (machine.folder / file.replace("lb.yaml", "keys.txt")).read_text().splitlines()
    assert line.split()[0] == name
    assert line.split()[1] == hash_of(done.stdout.strip())


def test_what_check_says_is_on_the_page(machine: Machine) -> None:
    page = (PAGES[0].parent / "docs/cli.md").read_text()
    answers = [
        found for block in blocks(page) for found in re.findall(r"\A\$ (lbproxy check \S+)\n(.+)\n\Z", block.text)
    ]
    [(command, answer)] = answers
    assert machine.run(command).stdout == f"{answer}\n"


def test_what_check_complains_of_is_on_the_page(machine: Machine) -> None:
    page = (PAGES[0].parent / "docs/cli.md").read_text()
    [line] = [block.text for block in blocks(page) if re.match(r"lb\.yaml:\S+ listeners", block.text)]
    file = machine.folder / "lb.yaml"
    file.write_text(file.read_text().replace("    pool: predict", "    pol: predict"))
    assert line in machine.run("lbproxy check lb.yaml").stderr


def test_what_test_says_is_on_the_page(machine: Machine) -> None:
    texts = [block.text for block in blocks((PAGES[0].parent / "docs/cli.md").read_text())]
    [config] = [text for text in texts if "\ntests:\n" in text]
    [good] = [text.partition("\n")[2] for text in texts if text.startswith("$ lbproxy test ")]
    [bad] = [text for text in texts if text.startswith("lb.yaml:") and "tests[0]" in text]
    file = machine.folder / "lb.yaml"
    file.write_text(config)
    done = machine.run("lbproxy test lb.yaml")
    assert (done.returncode, done.stdout, done.stderr) == (0, good, "")
    file.write_text(re.sub(r"\n *rewrite: .*", "", config))
    done = machine.run("lbproxy test lb.yaml")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", bad)


def test_answers_without_servers_are_those_on_the_pages(machine: Machine) -> None:
    wanted = {command: text for command, text in shown().items() if "503" in text}
    assert len(wanted) >= 2
    with one_lbproxy(machine, servers=False):
        for command, text in wanted.items():
            assert alike(machine.run(command).stdout) == alike(machine.moved(text)), command


def test_no_reason_for_leaving_out_is_idle() -> None:
    assert [pattern for pattern in NOT_HERE if not any(re.match(pattern, command) for command in ALL)] == []
    assert all(of(kind) for kind in KINDS)
    assert OTHERS


def test_commands_are_found_in_every_kind_of_place() -> None:
    page = "`lbproxy` and `lbproxy check -c a`\n\n```\nlbproxy b.yaml  # c\n$ lbproxy d\nlbproxy 0.1.0, up\n```\n"
    page += "```sh\nfor x in 1; do\n  echo $x\ndone\n\ne\n```\n```console\n$ curl f\nHTTP/1.1 200 OK\n```\n"
    assert sorted(commands(page)) == [
        "curl f",
        "e",
        "for x in 1; do   echo $x done",
        "lbproxy b.yaml  # c",
        "lbproxy check -c a",
        "lbproxy d",
    ]
