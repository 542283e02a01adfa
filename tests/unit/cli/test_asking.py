"""Whom `status` and `healthcheck` ask is in test_program.py; here is what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lbproxy import _client, cli


def test_a_config_without_an_admin_address_cannot_be_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LBPROXY_ADMIN", raising=False)
    path = tmp_path / "lb.yaml"
    path.write_text("admin: {bind: off}\nlisteners: [{bind: ':1', pool: p}]\npools: {p: {servers: ['a:1']}}\n")
    assert cli.main(["status", "-c", str(path)]) == 2
    assert "turns the admin address off" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "reload", "upgrade", "top", "healthcheck"])
def test_the_file_may_stand_without_its_option(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LBPROXY_ADMIN", raising=False)
    path = tmp_path / "lb.yaml"
    path.write_text("admin: {bind: off}\nlisteners: [{bind: ':1', pool: p}]\npools: {p: {servers: ['a:1']}}\n")
    assert cli.main([command, str(path)]) in (1, 2)
    assert f"{path} turns the admin address off" in capsys.readouterr().err


@pytest.mark.parametrize(("file", "is_told"), [("other.yaml", True), ("/etc/lbproxy/lb.yaml", False)])
def test_a_reload_reads_the_file_of_the_running_lbproxy_and_says_so_if_another_one_was_named(
    file: str, is_told: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lb.yaml"
    path.write_text("listeners: [{bind: ':1', pool: p}]\npools: {p: {servers: ['a:1']}}\n")
    told = json.dumps({"file": file, "steps": []}).encode()
    monkeypatch.setattr(_client, "call", lambda *_args, **_options: _client.Answer(200, told))
    assert cli.main(["reload", str(path)]) == 0
    said = f"{path} only said whom to ask: the lbproxy there runs with {file}, and that is what it has read\n"
    assert capsys.readouterr() == (f"{file}: 0 steps\n", said if is_told else "")
