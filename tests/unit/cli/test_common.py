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
