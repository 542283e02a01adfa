"""`lbproxy reload --dry-run` against a daemon whose file has changed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from tests.scenarios.cli.test_commands import lbproxy
from tests.support.daemon import LbProxy
from tests.support.origin import Origin


def test_what_a_changed_file_would_do(tmp_path: Path) -> None:
    with Origin() as origin:
        config: dict[str, object] = {
            "listeners": [{"name": "in", "bind": "127.0.0.1:0", "pool": "p"}],
            "pools": {"p": {"servers": [origin.address], "health_check": "off"}},
        }
        with LbProxy(config, tmp_path / "lb") as lb:
            admin = f"--admin=127.0.0.1:{lb.port('admin')}"
            file = lb.config_path

            def asked(*words: str) -> tuple[int, str, str]:
                done = lbproxy("reload", *words, admin, cwd=tmp_path)
                return done.returncode, done.stdout, done.stderr

            assert asked("--dry-run") == (0, f"{file}: 0 steps\n", "")
            changed = yaml.safe_load(file.read_text())
            changed["pools"]["p"]["servers"].append("127.0.0.1:1")
            file.write_text(yaml.safe_dump(changed))
            assert asked("--dry-run") == (0, f"{file}: 1 step\n  add server p/127.0.0.1:1\n", "")
            changed["pools"]["p"]["timeouts"] = {"read": "5m"}
            file.write_text(yaml.safe_dump(changed))
            steps = ["change pool p: timeouts.read: 60 -> 300", "add server p/127.0.0.1:1"]
            expected = "".join(f"{line}\n" for line in [f"{file}: 2 steps", *(f"  {step}" for step in steps)])
            assert asked("--dry-run") == (0, expected, "")
            status, out, _ = asked("--dry-run", "--json")
            assert status == 0 and [step["text"] for step in json.loads(out)["steps"]] == steps
            file.write_text("pools: [\n")
            status, out, err = asked("--dry-run")
            assert (status, out) == (2, "") and err.startswith(f"{file}:")
            assert asked()[0] == 2
            assert [server["name"] for server in pools(lb)[0]["servers"]] == [origin.address], "nothing was changed"
            file.write_text(yaml.safe_dump(changed))
            status, out, err = asked()
            assert (status, err) == (0, "")
            first, *rest = out.splitlines()
            assert re.fullmatch(
                re.escape(f"{file}: 2 steps, in force after ") + r"\d+ ms, of which reading took \d+ ms", first
            )
            assert rest == [f"  {step}" for step in steps]
            assert [server["name"] for server in pools(lb)[0]["servers"]] == [origin.address, "127.0.0.1:1"]
            assert asked("--dry-run") == (0, f"{file}: 0 steps\n", "")


def pools(lb: LbProxy) -> list[dict[str, list[dict[str, object]]]]:
    found = lb.status()["pools"]
    assert isinstance(found, list)
    return found
