"""Transcripts: a config, and every line that lbproxy says about it; they stand in refused.txt, slips.txt (what
people mistype, or bring from other programs) and warned.txt.

Columns count from 1. `${WORD}` is "many" and `${EMPTY}` is set but empty in all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from lbproxy.config.loader import ConfigError, load_file, load_text

ENVIRON = {"EMPTY": "", "WORD": "many"}


@dataclass(frozen=True)
class Transcript:
    name: str
    config: str
    said: list[str]


def transcripts(file: str) -> list[Transcript]:
    """Blocks of `==== name`, a config, `----`, and the lines that lbproxy says."""
    blocks = ("\n" + Path(__file__).with_name(file).read_text()).split("\n==== ")[1:]
    found = []
    for block in blocks:
        name, _, rest = block.partition("\n")
        config, _, said = ("\n" + rest).partition("\n----\n")
        found.append(Transcript(name, config[1:] + "\n" if config else "", said.split("\n")))
    return [Transcript(t.name, t.config, [line for line in t.said if line]) for t in found]


def test_there_are_transcripts() -> None:
    assert len(transcripts("refused.txt")) >= 50
    assert len(transcripts("slips.txt")) >= 100
    assert len(transcripts("warned.txt")) >= 8
    assert all(transcript.said for transcript in transcripts("refused.txt") + transcripts("warned.txt"))


@pytest.mark.parametrize(
    "transcript", transcripts("refused.txt") + transcripts("slips.txt"), ids=lambda transcript: transcript.name
)
def test_a_bad_config_is_refused_with_every_problem_at_its_place(transcript: Transcript) -> None:
    with pytest.raises(ConfigError) as raised:
        load_text(transcript.config, "lb.yaml", ENVIRON)
    assert [str(problem) for problem in raised.value.problems] == transcript.said
    assert str(raised.value) == "\n".join(transcript.said)


@pytest.mark.parametrize("transcript", transcripts("warned.txt"), ids=lambda transcript: transcript.name)
def test_what_is_legal_but_hardly_meant_is_a_warning(transcript: Transcript) -> None:
    loaded = load_text(transcript.config, "lb.yaml", ENVIRON)
    assert [str(problem) for problem in loaded.warnings] == transcript.said


def test_a_control_character_is_refused_where_it_is() -> None:
    with pytest.raises(ConfigError) as raised:
        load_text("log:\n  level: \x07\n", "lb.yaml", {})
    assert str(raised.value) == "lb.yaml:2:10: the character U+0007 is not allowed in YAML"


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as raised:
        load_file(path, {})
    return str(raised.value)


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.yaml") == f"{tmp_path}/none.yaml: there is no such file"
    assert refusal(tmp_path) == f"{tmp_path}: is a directory, not a file"
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    assert refusal(loop) == f"{loop}: cannot be read: Too many levels of symbolic links"
    assert refusal(Path("a\0b")) == "a\0b: cannot be read: embedded null byte"


def test_a_file_that_is_not_utf8_names_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    path.write_bytes("a: 1\nö: ".encode() + b"\xff\n")
    assert refusal(path) == f"{path}:2:4: byte 0xff is not UTF-8; save the file as UTF-8"


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("utf-16-le", "is not UTF-8; it looks like UTF-16 or UTF-32"),
        ("utf-16-be", "is not UTF-8; it looks like UTF-16 or UTF-32"),
        ("utf-32-be", "is not UTF-8; it looks like UTF-16 or UTF-32"),
        ("utf-32", "is in UTF-32"),
    ],
)
def test_a_file_in_wide_characters_without_their_mark_says_how_to_save_it(
    tmp_path: Path, encoding: str, told: str
) -> None:
    path = tmp_path / "lb.yaml"
    path.write_bytes("listeners: []\n".encode(encoding))
    assert refusal(path) == f"{path}:1:1: {told}; save the file as UTF-8"


def test_what_is_no_text_at_all_is_not_taken_for_wide_characters(tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    path.write_bytes(b"\0\1 garbage")
    assert refusal(path) == f"{path}:1:1: the character U+0000 is not allowed in YAML"


def test_a_file_above_one_mebibyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    path.write_bytes(b"#" * (1 << 20) + b"\n")
    assert refusal(path) == f"{path}: is larger than 1 MiB"


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "lb.yaml"
    path.write_bytes(b"\xef\xbb\xbflisteners: [{bind: ':1', pool: p}]\npools: {p: {servers: ['a:2']}}\n")
    assert load_file(str(path), {}).config.listeners[0].pool == "p"


def test_an_installed_strategy_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    def installed(*, group: str) -> list[EntryPoint]:
        assert group == "lbproxy.strategies"
        return [EntryPoint("longest_prefix", "somewhere:LongestPrefix", group)]

    monkeypatch.setattr("lbproxy.config.strategy_checks.entry_points", installed)
    text = "listeners: [{bind: ':1', pool: p}]\npools: {p: {servers: ['a:2'], strategy: {name: NAME, size: 010}}}\n"
    spec = load_text(text.replace("NAME", "longest_prefix"), "lb.yaml", {}).config.pools["p"].strategy
    assert (spec.name, dict(spec.options), type(spec.options["size"])) == ("longest_prefix", {"size": 10}, int)
    with pytest.raises(ConfigError, match="there is no strategy longest_prefx; did you mean longest_prefix"):
        load_text(text.replace("NAME", "longest_prefx"), "lb.yaml", {})
