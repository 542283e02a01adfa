"""What a reload would do is asked of the file as it is now; a file that can't be used is told as `check` tells it."""

from __future__ import annotations

import sys
from pathlib import Path

from lbproxy.config.loader import Kept, load_file
from lbproxy.config.model import Config
from lbproxy.config.source import MAX_BYTES
from lbproxy.process.applying import CannotApply
from lbproxy.process.config_watch import digest
from lbproxy.process.reloading import NO_FILE, Reloading
from lbproxy.telemetry.slots import PROCESS

GOOD = "listeners: [{bind: '127.0.0.1:5000', pool: p}]\npools: {p: {servers: ['127.0.0.1:1']}}\n"


def reloading(path: Path) -> Reloading:
    path.write_text(GOOD)
    return Reloading(load_file(path, {}).config, str(path), {"PORT": "2"}, never, [0] * PROCESS.width)


async def never(old: Config, new: Config) -> None:
    raise AssertionError("it was to be told only")


async def test_a_file_that_did_not_change(tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    asked = reloading(path)
    assert await asked.dry_run() == (200, {"dry_run": True, "file": str(path), "steps": [], "warnings": []})


async def test_each_question_reads_the_file_anew(tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    asked = reloading(path)
    path.write_text(GOOD.replace("'127.0.0.1:1'", "'127.0.0.1:1', '127.0.0.1:${PORT}'"))
    step = {
        "step": "add server",
        "subject": "p/127.0.0.1:2",
        "changes": [],
        "text": "add server p/127.0.0.1:2",
    }
    for _ in range(2):
        status, told = await asked.dry_run()
        assert (status, told["steps"]) == (200, [step]), "and nothing was taken over by asking"
    path.write_text(GOOD.replace("pool: p}", "pool: p, timeouts: {write: 9s}}"))
    status, told = await asked.dry_run()
    assert told["steps"] == [
        {
            "step": "change listener",
            "subject": "127.0.0.1:5000",
            "changes": [{"key": "timeouts.write", "old": "30", "new": "9"}],
            "text": "change listener 127.0.0.1:5000: timeouts.write: 30 -> 9",
        }
    ]


async def test_a_pool_that_did_not_change_stays_the_same_object(tmp_path: Path) -> None:
    """Which is how a reload finds out that there is nothing to do for it."""
    path = tmp_path / "lb.yaml"
    text = "listeners: [{bind: '127.0.0.1:5000', routes: [{pool: p}, {pool: q}]}]\npools:\n"
    pools = ["  p: {servers: ['127.0.0.1:1']}\n", "  q: {servers: ['127.0.0.1:2']}\n"]
    path.write_text(text + "".join(pools))
    kept = Kept()
    start = load_file(path, {}, checks_files=True, kept=kept).config

    async def take(old: Config, new: Config) -> None:
        assert old is start

    asked = Reloading(start, str(path), {}, take, [0] * PROCESS.width, kept=kept)
    path.write_text(text + pools[0].replace(":1", ":3") + pools[1])
    status, _ = await asked.reload("somebody")
    assert status == 200 and asked.config.pools["q"] is start.pools["q"]
    assert asked.config.pools["p"].servers[0].address.port == 3


async def test_every_problem_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    asked = reloading(path)
    path.write_text(GOOD.replace("pool: p", "pol: p"))
    status, told = await asked.dry_run()
    problems = told["problems"]
    assert status == 422 and isinstance(problems, list)
    assert any(str(problem).startswith(f"{path}:1:") and "did you mean pool?" in problem for problem in problems)
    path.write_text(GOOD.replace("servers", "strategy: {python: 'mine.py:Mine'}, servers"))
    status, told = await asked.dry_run()
    assert status == 422
    problems = told["problems"]
    assert isinstance(problems, list) and len(problems) == 1
    assert problems[0].startswith(f"{path}:2:") and "there is no file" in problems[0]
    path.unlink()
    assert (await asked.dry_run())[0] == 422


async def test_what_a_reload_does_is_told_and_counted(tmp_path: Path) -> None:
    path, row = tmp_path / "lb.yaml", [0] * PROCESS.width
    path.write_text(GOOD)
    applied: list[tuple[Config, Config]] = []
    told: list[tuple[str, str]] = []

    async def apply(old: Config, new: Config) -> None:
        if "{write: 8s}" in path.read_text():
            raise CannotApply("no room")
        applied.append((old, new))

    def count(result: str) -> int:
        return row[PROCESS.column("config_reloads_total", result)]

    first = load_file(path, {}).config
    asked = Reloading(first, str(path), {}, apply, row, lambda text, by: told.append((text, by)), lambda: 77.0)
    path.write_text(GOOD.replace("pool: p}", "pool: p, timeouts: {write: 9s}}"))
    status, answer = await asked.reload("ci")
    assert status == 200 and answer["dry_run"] is False and applied == [(first, asked.config)]
    assert (count("success"), list(asked.was_successful()), list(asked.succeeded_at())) == (
        1,
        [((), 1.0)],
        [((), 77.0)],
    )
    good = asked.config
    refused = GOOD.replace("pool: p}", "pool: p, timeouts: {write: 8s}}")
    for text, problem in (("pools: [", str(path)), (refused, "no room")):
        path.write_text(text)
        status, answer = await asked.reload("SIGHUP")
        problems = answer["problems"]
        assert status == 422 and isinstance(problems, list) and problems[0].startswith(problem)
        assert asked.config is good and list(asked.was_successful()) == [((), 0.0)]
    assert count("failure") == 2
    assert [by for _, by in told] == ["ci", "SIGHUP", "SIGHUP"]
    assert told[0][0] == "reload: change listener 127.0.0.1:5000: timeouts.write: 30 -> 9"


async def test_without_a_file_there_is_nothing_to_read(tmp_path: Path) -> None:
    config = reloading(tmp_path / "lb.yaml").config
    for path in ("", "-"):
        assert await Reloading(config, path, {}, never, [0] * PROCESS.width).dry_run() == (422, {"problems": [NO_FILE]})


async def test_reading_leaves_the_interpreter_as_it_was(tmp_path: Path) -> None:
    before = sys.getswitchinterval()
    await reloading(tmp_path / "lb.yaml").dry_run()
    assert sys.getswitchinterval() == before


async def test_a_change_right_after_the_file_was_read_is_news(tmp_path: Path) -> None:
    """By whom it was read: the start, a reload; and a dry run takes nothing over."""
    path = tmp_path / "lb.yaml"
    texts = [GOOD.replace(":1'", f":{number}'") for number in range(1, 5)]
    digests = []
    for text in texts:
        path.write_text(text)
        digests.append(digest(str(path)))

    async def take(old: Config, new: Config) -> None:
        path.write_text(texts[3])  # while the new one is put in force

    path.write_text(texts[0])
    kept = Kept()
    start = load_file(path, {}, kept=kept).config
    path.write_text(texts[1])
    asked = Reloading(start, str(path), {}, take, [0] * PROCESS.width, kept=kept)
    assert asked.digest == digests[0]
    path.write_text(texts[2])
    assert (await asked.dry_run())[0] == 200
    assert asked.digest == digests[0]
    assert (await asked.reload("somebody"))[0] == 200
    assert asked.digest == digests[2] and asked.config.pools["p"].servers[0].address.port == 3


async def test_what_is_wrong_is_read_once_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    asked = reloading(path)
    for text in (b"pools: [", b"\xff", b"x" * (MAX_BYTES + 1)):
        path.write_bytes(text)
        assert (await asked.reload("somebody"))[0] == 422
        assert asked.digest == digest(str(path)) != b""
    path.unlink()
    assert (await asked.reload("somebody"))[0] == 422
    assert asked.digest == digest(str(path)) == b""
