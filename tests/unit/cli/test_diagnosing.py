"""What `lbproxy doctor` takes and prints, and its exit status. Who is asked, and how, is in tests/scenarios/doctor."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from lbproxy import cli
from lbproxy.config.model import Config
from lbproxy.config.problems import Unusable
from lbproxy.doctor import examining
from lbproxy.doctor.answer import Reply
from lbproxy.doctor.examining import Options, Patient
from lbproxy.doctor.pace import Pace
from lbproxy.doctor.talking import Question
from lbproxy.doctor.verdict import Evidence

Capture = pytest.CaptureFixture[str]
CONFIG = (
    "listeners: [{bind: ':1', routes: [{match: {path: /q}, pool: q}, {pool: p}]}]\npools:\n  p: {servers: ['a:1']}\n"
)
CONFIG += "  q: {servers: ['b:1', 'b:2'], kind: waitress}\n"


class Surgery:
    """Stands for the examination; remembers what it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[list[str], Options, str]] = []
        self.found: dict[str, Evidence] = {}
        self.error: Unusable | None = None
        monkeypatch.setattr(examining, "examine", self.examine)

    async def examine(self, config: Config, pools: Sequence[str], options: Options, *, base_dir: str) -> list[Patient]:
        self.asked.append((list(pools), options, base_dir))
        if self.error is not None:
            raise self.error
        return [
            Patient(name, spec.name, spec.address, spec.address.host, self.found.get(spec.name, WELL))
            for name in pools
            for spec in config.pools[name].servers
        ]


def uvicorn(**more: object) -> Evidence:
    replies = {"/health": Reply(404, {"server": "uvicorn"}, b"", is_kept=True)}
    return Evidence(check="accepted a connection", replies=replies, is_reused=True, **more)  # type: ignore[arg-type]


WELL = Evidence(
    check="answered 200 to GET /health", replies={"/": Reply(200, {"server": "waitress"}, b"", is_kept=True)}
)


@pytest.fixture
def surgery(monkeypatch: pytest.MonkeyPatch) -> Surgery:
    return Surgery(monkeypatch)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "lb.yaml"
    path.write_text(CONFIG)
    return str(path)


def test_what_is_found_is_told_server_by_server_and_then_the_lines(
    surgery: Surgery, file: str, capsys: Capture
) -> None:
    surgery.found["a:1"] = uvicorn(closed_after_s=5.04, held_s=6.5, pids=(7, 8), pace=Pace(4, False, 0.05, 31))
    assert cli.main(["doctor", file]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    shared = "lbproxy sees one server and can't choose among them: give each a port of its own (docs/topology.md)"
    assert out.splitlines() == [
        "pool p",
        "  a:1: uvicorn (Server: uvicorn)",
        "    check: accepted a connection",
        "    connections: kept; closed after 5.0 s of silence",
        "    processes on its port: 2",
        "    requests at once: 4 (one alone takes 50 ms, 31 requests sent)",
        f"    note: 2 processes (7, 8) share this port; {shared}",
        "pool q",
        "  b:1: waitress (Server: waitress)",
        "    check: answered 200 to GET /health",
        "    connections: said to be kept",
        "  b:2: waitress (Server: waitress)",
        "    check: answered 200 to GET /health",
        "    connections: said to be kept",
        "",
        "These lines fit (lbproxy check accepts them in the file):",
        "",
        "pools:",
        "  p:",
        "    kind: uvicorn",
        "    max_inflight: 4",
        "    keep_alive: off",
    ]


def test_problems_are_counted_and_make_the_status(surgery: Surgery, file: str, capsys: Capture) -> None:
    surgery.found["a:1"] = Evidence(unreachable="connection refused; is the server started, and is this its port?")
    surgery.found["b:1"] = uvicorn(held_s=6.5)
    surgery.found["b:2"] = Evidence(check="accepted a connection", trouble="reset the connection")
    assert cli.main(["doctor", file]) == 1
    out, err = capsys.readouterr()
    assert err == f"{file}: 3 problems\n"
    assert out.splitlines() == [
        "pool p",
        "  a:1: connection refused; is the server started, and is this its port?",
        "pool q",
        "  b:1: uvicorn (Server: uvicorn)",
        "    check: accepted a connection",
        "    connections: kept; still open after 6.5 s of silence",
        "  b:2: reached",
        "    problem: reset the connection",
        "    check: accepted a connection",
        "  problem: the config says kind waitress, and its servers are uvicorn",
        "",
        "These lines fit (lbproxy check accepts them in the file):",
        "",
        "pools:",
        "  q:",
        "    kind: uvicorn",
    ]


def test_a_failed_check_says_so_once(surgery: Surgery, file: str, capsys: Capture) -> None:
    surgery.found["a:1"] = Evidence(
        check="answered 503 to GET /, expected 200-399",
        is_check_failed=True,
        replies={"/": Reply(503, {"server": "x"}, b"", is_kept=False)},
    )
    assert cli.main(["doctor", file, "--pool", "p"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "pool p",
        "  a:1: x (Server: x)",
        "    problem: its health check fails: it answered 503 to GET /, expected 200-399",
        "    connections: closed after each answer",
    ]


def test_a_server_of_a_tcp_pool_is_only_connected_to(surgery: Surgery, file: str, capsys: Capture) -> None:
    surgery.found["a:1"] = Evidence(check="accepted a connection")
    assert cli.main(["doctor", file, "--pool", "p"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "pool p",
        "  a:1: asked nothing, as only TCP listeners use its pool",
        "    check: accepted a connection",
    ]


def test_json(surgery: Surgery, file: str, capsys: Capture) -> None:
    surgery.found["a:1"] = uvicorn(closed_after_s=3.0, held_s=6.5)
    assert cli.main(["doctor", "-c", file, "--json", "--pool", "p"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], [pool["name"] for pool in told["pools"]]) == (True, ["p"])
    assert told["pools"][0]["fits"] == {"kind": "uvicorn", "keep_alive.idle_timeout": "1.6s"}
    assert told["yaml"] == "pools:\n  p:\n    kind: uvicorn\n    keep_alive: {idle_timeout: 1.6s}"
    [server] = told["pools"][0]["servers"]
    assert (server["address"], server["kind"], server["kept"], server["closed_after"]) == ("a:1", "uvicorn", True, 3.0)
    assert (server["at_once"], server["alone"], server["pids"]) == (None, None, [])


def test_nothing_is_sent_without_probe_and_what_it_sends_is_said(surgery: Surgery, file: str, tmp_path: Path) -> None:
    (tmp_path / "body.json").write_bytes(b"{}")
    assert cli.main(["doctor", file, "--timeout", "2", "--idle", "0"]) == 0
    words = ["--probe", "--path", "/predict?x=1", "--body", f"@{tmp_path}/body.json", "--header", "X-Key: a b"]
    assert cli.main(["doctor", file, "--pool", "q", *words, "--at-most", "64"]) == 0
    assert cli.main(["doctor", file, "--probe", "--path", "/", "--method", "PUT", "--body", "text"]) == 0
    assert surgery.asked == [
        (["p", "q"], Options(2.0, 0.0), str(tmp_path)),
        (["q"], Options(5.0, 6.5, Question("/predict?x=1", "POST", {"X-Key": "a b"}, b"{}"), 64), str(tmp_path)),
        (["p", "q"], Options(5.0, 6.5, Question("/", "PUT", {}, b"text")), str(tmp_path)),
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--path", "/x"], "--path is for --probe, which sends real requests to the servers; say that too"),
        (["--header", "a: b"], "--header is for --probe, which sends real requests to the servers; say that too"),
        (["--probe"], "--probe sends real requests: say which with --path (and --method, --body, --header)"),
        (["--probe", "--path", "x"], "expected a path that starts with /, got 'x'"),
        (["--probe", "--path", "/", "--method", "get"], "methods are case-sensitive; did you mean GET?"),
        (["--probe", "--path", "/", "--header", "a"], "--header 'a' has no colon; write NAME: VALUE"),
        (["--probe", "--path", "/", "--header", "a: b\rc"], "the header value holds a control character (U+000D)"),
        (["--probe", "--path", "/", "--body", "@/no/such"], "--body @/no/such: No such file or directory"),
        (["--pool", "r"], "there is no pool r; pools: p, q"),
    ],
)
def test_bad_usage(words: list[str], told: str, surgery: Surgery, file: str, capsys: Capture) -> None:
    assert cli.main(["doctor", file, *words]) == 2
    assert capsys.readouterr() == ("", f"lbproxy doctor: {told}\n")
    assert surgery.asked == []


@pytest.mark.parametrize(
    "words",
    [
        ["--at-most", "1"],
        ["--at-most", "257"],
        ["--at-most", "0000000041"],
        ["--at-most", "x"],
        ["--idle", "-1"],
        ["--timeout", "0"],
    ],
)
def test_numbers_have_bounds(words: list[str], surgery: Surgery, file: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", file, *words])
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err
    assert surgery.asked == []


def test_a_file_must_be_named(capsys: Capture) -> None:
    assert cli.main(["doctor"]) == 2
    assert capsys.readouterr().err == "lbproxy doctor: say which file: lbproxy doctor FILE\n"


def test_a_file_may_come_from_standard_input(
    surgery: Surgery, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(CONFIG.encode())))
    assert cli.main(["doctor", "-c", "-", "--pool", "q"]) == 0
    assert capsys.readouterr().out.startswith("pool q\n")
    assert surgery.asked[0][2] == "."


def test_a_certificate_that_cannot_be_read_is_told_with_its_place(surgery: Surgery, file: str, capsys: Capture) -> None:
    surgery.error = Unusable(("pools", "p"), "cannot be read")
    assert cli.main(["doctor", file]) == 2
    assert capsys.readouterr().err == f"{file}:3:6: pools.p: cannot be read\n"


def test_more_servers_than_can_be_asked(surgery: Surgery, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "lb.yaml"
    many = ", ".join(f"'10.0.0.{n}:1000-1255'" for n in range(5))
    path.write_text(CONFIG.replace("'a:1'", many))
    assert cli.main(["doctor", str(path)]) == 2
    told = "1282 servers are more than 1024; ask for one pool at a time with --pool"
    assert capsys.readouterr().err == f"lbproxy doctor: {told}\n"
    assert cli.main(["doctor", str(path), "--pool", "q"]) == 0
    assert len(surgery.asked) == 1
