"""Arguments that several commands take."""

from __future__ import annotations

import argparse

import pytest

from lbproxy.cli import common


def test_seconds() -> None:
    assert [common.seconds_argument(text) for text in ("2", "0.5s", "3600")] == [2.0, 0.5, 3600.0]
    for text in ("0", "-1", "3601", "soon", "nan"):
        with pytest.raises(argparse.ArgumentTypeError):
            common.seconds_argument(text)


def test_a_file_is_named_once() -> None:
    assert common.named_file(argparse.Namespace(config="a", file=None)) == "a"
    assert common.named_file(argparse.Namespace(config=None, file="b")) == "b"
    assert common.named_file(argparse.Namespace(config=None)) is None
    with pytest.raises(common.UsageError, match="a or b"):
        common.named_file(argparse.Namespace(config="a", file="b"))


def test_numbers_of_things() -> None:
    assert [common.counted(number, "pool") for number in (0, 1, 2)] == ["0 pools", "1 pool", "2 pools"]


def test_what_is_said_of_classes_and_keys_that_wait() -> None:
    queue = {"depth": 3, "classes": {"high": 1, "low": 2}, "keys": 1}
    assert common.waiting_apart(queue) == "; high 1, low 2; 1 key has turns"
    assert common.waiting_apart({"depth": 3, "classes": {}, "keys": 2}) == "; 2 keys have turns"
    for nothing in ({**queue, "depth": 0}, {"depth": 3}, {"depth": 3, "classes": {}, "keys": None}, {}):
        assert common.waiting_apart(nothing) == ""
