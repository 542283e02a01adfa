from __future__ import annotations

from lbproxy.config.problems import ConfigError, Problem, path_text


def test_paths_are_written_as_users_read_them() -> None:
    assert path_text(("pools", "a", "servers", 0, "address")) == "pools.a.servers[0].address"
    assert path_text(()) == ""


def test_a_key_with_a_line_break_does_not_break_the_line() -> None:
    assert path_text(("pools", "a\rb\u2028", "x")) == r"pools.a\rb\u2028.x"
    assert path_text(("\n",)) == r"\n"


def test_a_problem_is_one_line() -> None:
    assert str(Problem("a.yaml", 3, 4, "log.level", "is wrong", "did you mean info?")) == (
        "a.yaml:3:4: log.level: is wrong; did you mean info?"
    )
    assert str(Problem("a.yaml", 3, 4, "", "is not YAML")) == "a.yaml:3:4: is not YAML"
    assert str(Problem("a.yaml", 0, 0, "", "there is no such file")) == "a.yaml: there is no such file"


def test_the_error_is_all_its_problems() -> None:
    one, two = Problem("a", 1, 1, "x", "m"), Problem("a", 2, 1, "y", "n")
    assert str(ConfigError((one, two))) == "a:1:1: x: m\na:2:1: y: n"
