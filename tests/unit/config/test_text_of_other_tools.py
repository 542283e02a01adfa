"""Files as other tools write them: encodings, line ends, JSON, and what they make of `off`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lbproxy.config.loader import load_file, load_text

SMALL = "# caf\u00e9\nlisteners: [{bind: ':5000', pool: p}]\npools: {p: {servers: ['127.0.0.1:1']}}\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_encodings_and_line_ends(encoding: str, newline: str, tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    text = SMALL.replace("\n", newline)
    if encoding.endswith("-bom"):
        path.write_bytes(("\ufeff" + text).encode(encoding.removesuffix("-bom")))
    else:
        path.write_bytes(text.encode(encoding))
    assert load_file(path, {}).config == load_text(SMALL, "f", {}).config


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json(indent: int | str | None) -> None:
    small = yaml.safe_load(SMALL)
    assert load_text(json.dumps(small, indent=indent), "f", {}).config == load_text(SMALL, "f", {}).config


def test_what_a_yaml_1_1_tool_makes_of_a_config_means_the_same() -> None:
    """Such a tool reads `off` as false, and writes `false`."""
    text = (
        "admin: off\naccess_log: off\n"
        "listeners: [{bind: ':1', pool: p, tls: off, proxy_protocol: off, upgrade: off, deadline_header: off}]\n"
        "pools:\n  p:\n    servers: ['a:1']\n    health_check: off\n    retry: off\n    circuit_breaker: off\n"
        "    max_inflight: off\n    fail_open: off\n    keep_alive: off\n    tls: off\n    proxy_protocol: off\n"
    )
    rewritten = yaml.safe_dump(yaml.safe_load(text))
    assert "off" not in rewritten and rewritten.count("false") == 14
    assert load_text(rewritten, "f", {}).config == load_text(text, "f", {}).config


@pytest.mark.parametrize("wrapped", ["---\n{}", "---\n{}...\n", "%YAML 1.2\n---\n{}", "{}---\n# nothing\n", "\n\n{}\n"])
def test_document_markers(wrapped: str) -> None:
    assert load_text(wrapped.replace("{}", SMALL), "f", {}).config == load_text(SMALL, "f", {}).config
