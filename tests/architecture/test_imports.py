"""The import contracts of pyproject.toml hold, and they are the ones that the architecture draws."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.architecture.rules import ROOT


def contracts(kind: str) -> list[dict[str, list[str]]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return [contract for contract in settings["contracts"] if contract["type"] == kind]


def test_imports_go_one_way() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("contract", contracts("layers"), ids=lambda contract: contract["containers"][0])
def test_the_contract_orders_every_part_of_a_package(contract: dict[str, list[str]]) -> None:
    words = {word.strip(" ()") for layer in contract["layers"] for word in layer.split("|")}
    (package,) = contract["containers"]
    paths = ROOT.joinpath(*package.split(".")).iterdir()
    parts = {path.stem for path in paths if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__"} <= words


def test_the_whole_package_and_the_data_plane_are_ordered() -> None:
    assert [contract["containers"] for contract in contracts("layers")] == [
        ["lbproxy"],
        ["lbproxy.dataplane"],
        ["lbproxy.dataplane.exchange"],
    ]


def test_there_are_no_exceptions() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert len(settings["contracts"]) == 5
    assert [contract["name"] for contract in settings["contracts"] if "ignore_imports" in contract] == []


def test_an_exchange_knows_neither_end_and_the_server_s_end_no_request() -> None:
    rooms = contracts("layers")[1]["layers"]
    assert rooms.index("exchange") > rooms.index("client | server")
    ends = contracts("forbidden")[0]
    assert ends["source_modules"] == ["lbproxy.dataplane.server"]
    assert {"lbproxy.dataplane.exchange.exchange", "lbproxy.dataplane.exchange.client_stream"} <= set(
        ends["forbidden_modules"]
    )


def test_pure_code_has_no_way_to_the_outside() -> None:
    contract = contracts("forbidden")[1]
    assert {"lbproxy.domain", "lbproxy.protocol", "lbproxy.config.model"} <= set(contract["source_modules"])
    assert {"asyncio", "socket", "ssl", "time", "random", "yaml", "prometheus_client"} <= set(
        contract["forbidden_modules"]
    )
