"""What `lbproxy run --to ...` stands for."""

from __future__ import annotations

import argparse

import pytest

from lbproxy.cli import options_only
from lbproxy.cli.common import ConfigRefused
from lbproxy.config import loader
from lbproxy.config.model import Config


def typed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    options_only.add_options(parser)
    return parser.parse_args(words)


def config_of(*words: str) -> Config:
    return options_only.load(typed(*words), {}).config


def test_every_option_reaches_its_key() -> None:
    config = config_of(
        *("--to", ":5001-5002", "--bind", ":8000", "--bind", ":8001", "--strategy", "peak_ewma", "--health", "/ready"),
        *("--slots", "4", "--mode", "http", "--admin", ":9000"),
    )
    pool = config.pools["default"]
    assert [str(server.address) for server in pool.servers] == ["127.0.0.1:5001", "127.0.0.1:5002"]
    assert [str(bind) for bind in config.listeners[0].bind] == ["0.0.0.0:8000", "0.0.0.0:8001"]
    assert (pool.strategy.name, pool.max_inflight, config.listeners[0].mode) == ("peak_ewma", 4, "http")
    assert pool.health_check is not None
    assert (pool.health_check.type, pool.health_check.path) == ("http", "/ready")
    assert str(config.admin.bind) == "0.0.0.0:9000"


def test_what_can_be_off_can_be_off() -> None:
    config = config_of("--to", ":1", "--health", "off", "--slots", "off", "--admin", "off", "--mode", "tcp")
    pool = config.pools["default"]
    assert (pool.health_check, pool.max_inflight, config.admin.bind, config.listeners[0].mode) == (
        None,
        None,
        None,
        "tcp",
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "a"], "--to a: 'a' has no port; write host:port"),
        (["--to", "5001"], "--to 5001: '5001' is a port alone; write 127.0.0.1:5001"),
        (["--to", ":1", "--to", "b"], "--to b: 'b' has no port; write host:port"),
        (["--to", ":1", "--slots", "many"], "--slots many: expected a whole number from 1 to 1000000, got 'many'"),
        (["--to", ":1", "--mode", "udp"], "--mode udp: expected http or tcp, got 'udp'"),
        (
            ["--to", ":1", "--strategy", "least_connection"],
            "--strategy least_connection: there is no strategy least_connection; did you mean least_connections?",
        ),
        (
            ["--to", ":1", "--health", "udp"],
            "--health udp: expected off, tcp, grpc, a path that starts with /, or a mapping, got 'udp'; "
            "did you mean /udp?",
        ),
        (["--to", ":1", "--admin", "here"], "--admin here: 'here' has no port; write host:port"),
        (["--to", ":1", "--bind", ":1", "--bind", "x"], "--bind x: 'x' has no port; write host:port"),
    ],
)
def test_a_complaint_names_the_option(words: list[str], said: str) -> None:
    with pytest.raises(ConfigRefused) as refused:
        config_of(*words)
    assert f"command line: {said}" in str(refused.value).splitlines()


def test_nothing_typed_on_the_command_line_is_interpreted() -> None:
    args = typed("--to", "unix:/run/${HOME}", "--bind", ":1")
    for text in (options_only.config_text(args), options_only.config_yaml(args)):
        assert text.count("$${HOME}") == text.count("${HOME}") == 1
        config = loader.load_text(text, "x", {"HOME": "/root"}).config
        assert str(config.pools["default"].servers[0].address) == "unix:/run/${HOME}"


def test_the_printed_file_means_the_same() -> None:
    words = ["--to", ":5001", "--health", "off", "--slots", "2", "--admin", "off", "--bind", "[::1]:80"]
    text = options_only.config_yaml(typed(*words))
    assert loader.load_text(text, "x", {}).config == config_of(*words)
    assert "\n  default:\n    servers:\n    - 127.0.0.1:5001\n" in text
