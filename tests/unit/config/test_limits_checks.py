"""What must hold between keys, limits and routes."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.api_keys import hash_of
from lbproxy.config.loader import ConfigError, Loaded, load_text

REST = "pools: {p: {servers: ['a:1']}}\n"
LISTENERS = "listeners: [{bind: ':1', pool: p}]\n"


def loaded(text: str, folder: Path | None = None) -> Loaded:
    return load_text(text + REST, "lb.yaml", {}, base_dir=folder)


def problems(text: str, folder: Path | None = None) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        loaded(text, folder)
    return [str(problem) for problem in raised.value.problems]


def test_names_of_limits_differ() -> None:
    limits = "rate_limits:\n- {key: client_ip, rate: 1/s}\n- {key: client_ip, rate: 9/m}\n"
    assert problems(limits + LISTENERS) == [
        "lb.yaml:3:3: rate_limits[1]: rate_limits[0] is called client_ip too; give each a `name`"
    ]
    named = "rate_limits:\n- {key: client_ip, rate: 1/s}\n- {key: all, name: client_ip, rate: 9/m}\n"
    assert [line.split(": ")[1] for line in problems(named + LISTENERS)] == ["rate_limits[1].name"]
    assert len(loaded(named.replace("name: client_ip", "name: n") + LISTENERS).config.rate_limits) == 2


def test_a_burst_comes_again_some_day() -> None:
    text = "rate_limits: [{key: all, rate: 1/d, burst: 367}]\n"
    assert problems(text + LISTENERS) == [
        "lb.yaml:1:44: rate_limits[0].burst: takes 367 days to be full again at this rate; a year is the most"
    ]
    assert loaded(text.replace("367", "366") + LISTENERS).config.rate_limits[0].most_at_once == 366


def test_what_asks_for_keys_needs_them() -> None:
    text = """\
rate_limits:
- {key: api_key, rate: 1/s}
- {key: all, rate: 1/s, match: {api_key: a}}
listeners:
- bind: ':1'
  routes:
  - {match: {api_key: a}, pool: p}
  - {pool: p, api_keys: [b]}
"""
    found = problems(text)
    assert [line.split(": ")[1] for line in found] == [
        "rate_limits[0].key",
        "rate_limits[1].match.api_key",
        "listeners[0].routes[0].match.api_key",
        "listeners[0].routes[1].api_keys",
    ]
    assert all("there are no `api_keys`" in line for line in found)
    assert loaded("api_keys: {file: k}\n" + text).config.api_keys is not None


def test_without_http_there_is_nothing_to_guard() -> None:
    text = "api_keys: {file: k}\nrate_limits: [{key: all, rate: 1/s}]\nlisteners: [{bind: ':1', mode: tcp, pool: p}]\n"
    assert [warning.path for warning in loaded(text).warnings] == ["api_keys", "rate_limits"]
    routes = "api_keys: {file: k}\nlisteners: [{bind: ':1', mode: tcp, routes: [{pool: p, api_keys: off}]}]\n"
    assert "is not possible on a TCP listener" in problems(routes)[0]


def test_the_file_is_looked_at(tmp_path: Path) -> None:
    text = "api_keys: {file: k}\nlisteners: [{bind: ':1', routes: [{pool: p, api_keys: [a, b]}]}]\n"
    [missing] = problems(text, tmp_path)
    assert "lb.yaml:1:18: api_keys.file:" in missing and "lbproxy key new" in missing
    (tmp_path / "k").write_text(f"a {hash_of('x')}\n")
    assert [str(warning) for warning in loaded(text, tmp_path).warnings] == [
        "lb.yaml:2:59: listeners[0].routes[0].api_keys[1]: k has no key of the name b"
    ]
    assert not loaded(text).warnings


@pytest.mark.parametrize(
    ("rule", "said"),
    [("maybe", "did you mean \\[maybe\\]"), ("[]", "lets nobody in"), ("['a b']", "without spaces")],
)
def test_rules_of_routes(rule: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        loaded(f"api_keys: {{file: k}}\nlisteners: [{{bind: ':1', routes: [{{pool: p, api_keys: {rule}}}]}}]\n")
