"""Reads the Dockerfile and performs it in a temporary root directory; see dockerfile_steps.sh.

Nothing of the Dockerfile is repeated here: absolute paths in its steps are moved below the temporary root, a stage is
performed if the target needs it, and the ENTRYPOINT, CMD and HEALTHCHECK that are tested are the ones that stand there.
What this cannot show: the base image, USER, and the port numbers (the config is changed to ports that are free).
Needs only the standard library, plus PyYAML from the environment that the steps themselves have made.
"""

from __future__ import annotations

import http.server
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
KNOWN = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "ENTRYPOINT", "CMD", "HEALTHCHECK"}
# Directories of the image that the steps write to or read from; `/bin` and the like stay those of this machine.
MOVED = re.compile(r"(?<![\w./])/(?=(?:opt|src|etc/lbproxy)\b)")
LISTENING = re.compile(r"listening name=(\S+) address=\S+:(\d+)")
START_S, STOP_S = 60.0, 60.0  # on a machine that does other things, too


class StepError(Exception):
    """A step failed or is not understood. The text is for the reader."""


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction: FROM, RUN ..., and the rest of its line, continuation lines joined."""

    word: str
    rest: str


@dataclass(slots=True)
class Stage:
    """The steps between two FROMs; `base` is an image or an earlier stage."""

    name: str
    base: str
    steps: list[Step] = field(default_factory=list)


def parse(text: str) -> list[Stage]:
    """The stages of a Dockerfile. Raises StepError on an instruction that this script does not know."""
    joined = re.sub(r"\\\n", " ", "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")))
    stages: list[Stage] = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        if word not in KNOWN:
            raise StepError(f"the Dockerfile has an instruction that {Path(__file__).name} does not know: {line}")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(name.strip(), base.strip()))
        else:
            stages[-1].steps.append(Step(word, rest.strip()))
    return stages


def lineage(stages: list[Stage], target: str) -> list[Stage]:
    """The target and the stages it is built from, in the order of the file."""
    by_name = {stage.name: stage for stage in stages}
    needed: set[str] = set()

    def need(name: str) -> None:
        if name in by_name and name not in needed:
            needed.add(name)
            need(by_name[name].base)
            for step in by_name[name].steps:
                if step.word == "COPY" and (source := re.match(r"--from=(\S+)", step.rest)):
                    need(source[1])

    need(target)
    return [stage for stage in stages if stage.name in needed]


def exec_form(text: str) -> list[str]:
    """The words of ENTRYPOINT ["a", "b"]. Raises StepError for the shell form, in which SIGTERM would meet a shell."""
    try:
        words = json.loads(text)
    except ValueError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise StepError(f"not in exec form: {text}")
    return words


class Image:
    """What the steps have made so far: a directory that stands for / and the settings for its command."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workdir = root
        self.environ = {"PATH": f"{root}/python:/usr/bin:/bin", "HOME": str(root)}
        self.entrypoint: list[str] = []
        self.command: list[str] = []
        self.healthcheck: list[str] = []
        python = root / "python" / "python"
        python.parent.mkdir()
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        python.chmod(0o755)

    def moved(self, text: str) -> str:
        return MOVED.sub(f"{self.root}/", text)

    def begin_stage(self) -> None:
        """ENV and WORKDIR of another stage are not those of this one."""
        self.workdir = self.root
        self.environ["PATH"] = f"{self.root}/python:/usr/bin:/bin"

    def perform(self, step: Step) -> None:
        """One step. Raises StepError."""
        match step.word:
            case "WORKDIR":
                self.workdir = Path(self.moved(step.rest))
                self.workdir.mkdir(parents=True, exist_ok=True)
            case "COPY":
                self._copy(step.rest)
            case "RUN":
                self._run(step.rest)
            case "ENV":
                name, _, value = step.rest.partition("=")
                self.environ[name] = self.moved(value).replace(f"${name}", self.environ.get(name, ""))
            case "ENTRYPOINT":
                self.entrypoint = exec_form(step.rest)
            case "CMD":
                self.command = exec_form(step.rest)
            case "HEALTHCHECK":
                self.healthcheck = exec_form(step.rest.partition("CMD ")[2])

    def _run(self, command: str) -> None:
        done = subprocess.run(
            ["/bin/sh", "-ec", self.moved(command)],
            cwd=self.workdir,
            env={**self._passed_on(), **self.environ},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise StepError(f"RUN {command}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")

    @staticmethod
    def _passed_on() -> dict[str, str]:
        """What a build gets from outside: how to reach the package index, its trust store, and whether to compile."""
        wanted = re.compile(
            r"(?i)^(https?_proxy|no_proxy|pip_.*|ssl_cert_file|requests_ca_bundle|lbproxy_compile(_cache)?)$"
        )
        return {name: value for name, value in os.environ.items() if wanted.match(name)}

    def _copy(self, arguments: str) -> None:
        words = arguments.split()
        if words[0].startswith("--from="):
            if self.moved(words[1]) != self.moved(words[2]) or not Path(self.moved(words[1])).exists():
                raise StepError(f"COPY {arguments}: only to the same existing path (all stages share one root here)")
            return
        *sources, target_text = words
        target = Path(self.moved(target_text)) if target_text.startswith("/") else self.workdir / target_text
        for source in sources:
            origin = REPOSITORY / source
            if not origin.exists():
                raise StepError(f"COPY {arguments}: there is no {source}")
            if origin.is_dir():
                shutil.copytree(origin, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                is_directory = target_text.endswith("/") or len(sources) > 1
                (target if is_directory else target.parent).mkdir(parents=True, exist_ok=True)
                shutil.copy(origin, target)

    def resolved(self, command: list[str]) -> list[str]:
        """A command with its program looked up in the image's own PATH and its paths moved."""
        program = shutil.which(command[0], path=self.environ["PATH"])
        if program is None or not Path(program).is_relative_to(self.root):
            raise StepError(f"{command[0]} is not in the image")
        return [program, *(self.moved(word) for word in command[1:])]


class _Upstream(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"from the server\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silent: the output of this script is its report."""


# Run by the image's own interpreter, which has PyYAML: keeps all of the config but the addresses.
CHANGE_ADDRESSES = """
import sys, yaml
path, server = sys.argv[1:]
config = yaml.safe_load(open(path))
config.setdefault("admin", {})["bind"] = "127.0.0.1:0"
for listener in config["listeners"]:
    listener["bind"] = "127.0.0.1:0"
for pool in config["pools"].values():
    pool["servers"] = [server]
open(path, "w").write(yaml.safe_dump(config))
"""


def until(condition: Callable[[], str], what: str, timeout_s: float) -> str:
    """The first non-empty result of `condition`. Raises StepError when late."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise StepError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.05)
    return value


def smoke_test(image: Image, server: str) -> Iterator[str]:
    """Start the image's command and use it as Docker would; yields a line for each thing that works."""
    environ = {"LANG": "C.UTF-8", **image.environ}
    config = next(Path(image.moved(word)) for word in image.command if word.endswith(".yaml"))
    command = image.resolved([*image.entrypoint, *image.command])
    checked = subprocess.run([command[0], "check", "--config", config], env=environ, capture_output=True, text=True)
    if checked.returncode:
        raise StepError(f"the bundled config is refused:\n{checked.stderr}")
    yield f"the bundled config is valid: {checked.stdout.strip().rpartition('/')[2]}"
    interpreter = Path(command[0]).with_name("python")
    place = [str(interpreter), "-P", "-c", "import lbproxy.domain.pool as pool; print(pool.__file__)"]
    kind = subprocess.run(place, env=environ, capture_output=True, text=True, check=True).stdout.strip()
    yield f"its modules are {'compiled' if kind.endswith('.so') else 'interpreted'}"
    subprocess.run([interpreter, "-c", CHANGE_ADDRESSES, config, server], env=environ, check=True)
    log_path = image.root / "stderr.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:

        def ports() -> dict[str, str]:
            if process.poll() is not None:
                raise StepError(f"{' '.join(command)} ended with {process.returncode}:\n{log_path.read_text()}")
            return dict(LISTENING.findall(log_path.read_text()))

        until(lambda: "yes" if "admin" in ports() and len(ports()) > 1 else "", "lbproxy to listen", START_S)
        admin = ports().pop("admin")
        traffic = next(port for name, port in ports().items() if name != "admin")
        environ["LBPROXY_ADMIN"] = f"127.0.0.1:{admin}"
        until(lambda: fetched(f"http://127.0.0.1:{traffic}/"), "an answer through lbproxy", START_S)
        yield "a request through lbproxy was answered"
        health = image.resolved(image.healthcheck)
        until(
            lambda: "" if subprocess.run(health, env=environ, capture_output=True).returncode else "ok",
            "health",
            START_S,
        )
        yield f"HEALTHCHECK passes: {' '.join(image.healthcheck)}"
        process.send_signal(signal.SIGTERM)
        code = process.wait(STOP_S)
        if code != 0:
            raise StepError(f"ended with {code} after SIGTERM:\n{log_path.read_text()}")
        yield "SIGTERM ends it with status 0"
        if subprocess.run(health, env=environ, capture_output=True).returncode != 1:
            raise StepError("HEALTHCHECK does not fail with 1 when lbproxy is gone")
        yield "HEALTHCHECK fails with 1 when lbproxy is gone"
    except subprocess.TimeoutExpired:
        raise StepError(f"still running {STOP_S:g} s after SIGTERM:\n{log_path.read_text()}") from None
    finally:
        process.kill()
        process.wait()


def fetched(url: str) -> str:
    """The body of a 200, or nothing."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def main() -> int:
    try:
        stages = parse((REPOSITORY / "Dockerfile").read_text())
        target = stages[-1].name
        with tempfile.TemporaryDirectory(prefix="lbproxy-image-") as directory:
            image = Image(Path(directory).resolve())
            for stage in lineage(stages, target):
                image.begin_stage()
                for step in stage.steps:
                    print(f"{stage.name}: {step.word} {step.rest}", flush=True)
                    image.perform(step)
            with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Upstream) as upstream:
                threading.Thread(target=upstream.serve_forever, daemon=True).start()
                for line in smoke_test(image, f"127.0.0.1:{upstream.server_port}"):
                    print(f"ok: {line}", flush=True)
                upstream.shutdown()
    except StepError as error:
        print(f"dockerfile_steps: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
