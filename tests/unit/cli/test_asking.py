"""Whom `status` and `healthcheck` ask is in test_program.py; here is what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy import cli


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
