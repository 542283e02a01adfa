"""The pytest plug-in as users have it: found by its entry point, in a pytest of its own; and docs/testing.md."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support.build import ROOT
from tests.support.pages import blocks

PAGE = (ROOT / "docs" / "testing.md").read_text()
EXAMPLES = [block.text for block in blocks(PAGE) if block.info == "python"]


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A Python that sees the installed lbproxy and not the checkout."""
    return subprocess.run(
        [sys.executable, "-P", *words], capture_output=True, text=True, cwd=folder, timeout=300, check=False
    )


# The plug-ins of others are not what is tried here, and cost half of a start.
OTHERS = ("asyncio", "anyio", "hypothesispytest", "timeout", "xdist", "xdist.looponfail")


def run_pytest(text: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(text)
    without = [word for name in ("cacheprovider", *OTHERS) for word in ("-p", f"no:{name}")]
    return run("-m", "pytest", "-q", *without, "-W", "error", *words, folder=folder)


def test_the_example_of_the_page_passes(tmp_path: Path) -> None:
    done = run_pytest(EXAMPLES[0], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_the_example_without_pytest_runs(tmp_path: Path) -> None:
    found = re.search(r'CONFIG = """\n(.*?)"""', EXAMPLES[0], re.DOTALL)
    assert found
    (tmp_path / "lb.yaml").write_text(found[1])
    done = run("-c", EXAMPLES[1], folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/predict\n", done.stdout)


PASSES_AND_FAILS = """
def start(lbproxy, faulty_server):
    one, two = faulty_server(), faulty_server()
    config = {"listeners": [{"bind": ":0", "pool": "p"}], "pools": {"p": {"servers": [one, two]}}}
    return lbproxy(config).is_running

def test_that_passes(lbproxy, faulty_server):
    assert start(lbproxy, faulty_server)

def test_that_fails(lbproxy, faulty_server):
    assert start(lbproxy, faulty_server) and start(lbproxy, faulty_server)
    assert 1 == 2
"""


def test_a_test_that_fails_shows_the_log_of_each_lbproxy_and_one_that_passes_none(tmp_path: Path) -> None:
    done = run_pytest(PASSES_AND_FAILS, tmp_path, "-rA")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 1 passed" in done.stdout
    assert re.findall("log of lbproxy [0-9]", done.stdout) == ["log of lbproxy 1", "log of lbproxy 2"]
    assert done.stdout.count("listening name=admin") == 2


def test_a_config_that_is_wrong_is_shown_without_what_is_inside_of_the_plug_in(tmp_path: Path) -> None:
    done = run_pytest("def test_it(lbproxy):\n    lbproxy({'listeners': [], 'pol': 1})\n", tmp_path)
    assert done.returncode == 1
    assert "unknown key" in done.stdout
    assert "lbproxy/testing/proxy.py" not in done.stdout


def test_the_plug_in_can_be_left_out(tmp_path: Path) -> None:
    done = run_pytest("def test_it(lbproxy): pass\n", tmp_path, "-p", "no:lbproxy")
    assert done.returncode == 1
    assert "fixture 'lbproxy' not found" in done.stdout


def test_pytest_loads_little_of_lbproxy_and_lbproxy_nothing_of_pytest(tmp_path: Path) -> None:
    code = "import sys, lbproxy.testing.plugin as _; print(sorted(m for m in sys.modules if m in {WORDS}))"
    heavy = "('pydantic', 'yaml', 'uvloop', 'aiohttp', 'lbproxy.config')"
    assert run("-c", code.replace("{WORDS}", heavy), folder=tmp_path).stdout == "[]\n"
    code = "import sys, lbproxy.process.worker, lbproxy.testing as _; print('pytest' in sys.modules)"
    assert run("-c", code, folder=tmp_path).stdout == "False\n"


def test_the_fixtures_explain_themselves(tmp_path: Path) -> None:
    done = run_pytest("", tmp_path, "--fixtures")
    found = re.findall(r"(?m)^(\w+) -- .*plugin\.py.*\n    Call it ", done.stdout)
    assert sorted(found) == ["faulty_server", "lbproxy"], done.stdout
