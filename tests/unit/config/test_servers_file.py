from pathlib import Path

import pytest

from lbproxy.config.loader import load_text
from lbproxy.config.problems import ConfigError
from lbproxy.config.servers_file import look_at, parse_servers, read_servers_file


def test_servers_are_written_as_in_the_config() -> None:
    text = """\
- 10.0.0.1:5001-5002
- unix:/run/app.sock
- {address: "[fd00::1]:80", name: gpu, weight: 4, max_inflight: 2, backup: true}
- ${HOST}:80
"""
    found = parse_servers(text, "s.yaml", {"HOST": "10.0.0.9"})
    assert [str(spec.address) for spec in found] == [
        "10.0.0.1:5001",
        "10.0.0.1:5002",
        "unix:/run/app.sock",
        "[fd00::1]:80",
        "10.0.0.9:80",
    ]
    assert (found[3].name, found[3].weight, found[3].max_inflight, found[3].backup) == ("gpu", 4, 2, True)


def test_json_will_do() -> None:
    found = parse_servers('[{"address": "10.0.0.1:80", "weight": 2},\t"10.0.0.2:80"]', "s.json", {})
    assert [(spec.name, spec.weight) for spec in found] == [("10.0.0.1:80", 2), ("10.0.0.2:80", 1)]


@pytest.mark.parametrize("text", ["[]", "[]\n", "# none today\n[]\n", "---\n[ ]\n"])
def test_an_empty_list_is_a_list(text: str) -> None:
    assert parse_servers(text, "s.yaml", {}) == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ["s.yaml:1:1: is empty; write [] for a list of no servers"]),
        (" \n", ["s.yaml:1:1: is empty; write [] for a list of no servers"]),
        ("# nothing\n", ["s.yaml:1:1: is empty; write [] for a list of no servers"]),
        ("null\n", ["s.yaml:1:1: is empty; write [] for a list of no servers"]),
        ("garbage", ["s.yaml:1:1: expected a list of servers, got 'garbage'; begin each with `- `"]),
        ("a: b", ["s.yaml:1:1: expected a list of servers, got a mapping; begin each with `- `"]),
        ("- [1\n", ["s.yaml:1:3: the [ that opens here is not closed; close it, or remove it"]),
        (
            "- 10.0.0.1\n- 10.0.0.2:80\n- {adress: 1}\n",
            [
                "s.yaml:1:3: [0]: '10.0.0.1' has no port; write host:port",
                "s.yaml:3:4: [2].adress: unknown key; did you mean address?",
            ],
        ),
        (
            "- 10.0.0.1:80\n- 10.0.0.1:80\n",
            ["s.yaml:2:3: [1]: servers[0] has the address 10.0.0.1:80 too; remove one of them"],
        ),
        (
            "- app.example:80\n",
            [
                "s.yaml:1:3: [0]: app.example is a name, and a servers_file has addresses only; put the name into "
                "`servers` of the config"
            ],
        ),
        (
            "- 10.0.0.1:80\n- ${X}\n",
            ["s.yaml:2:3: [1]: the environment variable X is not set; set it, or write ${X:-default}"],
        ),
        (
            "- {address: '10.0.0.1:80', weight: 1, weight: 2}\n",
            ["s.yaml:1:39: [0].weight: is given twice, first in line 1; remove one of them"],
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, told: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_servers(text, "s.yaml", {})
    assert [str(problem) for problem in raised.value.problems] == told


def test_a_file_without_end_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("- 10.0.0.1:80\n" * 100_000)
    with pytest.raises(ConfigError, match="is larger than 1 MiB"):
        read_servers_file(path, {})


def test_check_looks_at_every_file(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("[10.0.0.1:80, 10.0.0.2:80]")
    (tmp_path / "bad.yaml").write_text("- 10.0.0.1\n")
    pools = ", ".join(f"{name}: {{servers_file: {name}.yaml}}" for name in ("good", "bad", "late"))
    text = f"listeners: [{{bind: ':1', pool: good}}]\npools: {{{pools}, none: {{servers: ['a:1']}}}}\n"
    looked = look_at(load_text(text, "lb.yaml", {}).config, tmp_path, {})
    assert looked.n_servers == 2
    assert [str(problem) for problem in looked.problems] == [
        f"{tmp_path}/bad.yaml:1:3: [0]: '10.0.0.1' has no port; write host:port"
    ]
    assert [(error.path, str(error)) for error in looked.missing] == [
        (
            ("pools", "late", "servers_file"),
            f"there is no file {tmp_path}/late.yaml yet; the pool has none of its servers until there is one",
        )
    ]
