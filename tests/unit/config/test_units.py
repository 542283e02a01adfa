from __future__ import annotations

import copy
import pickle

import pytest

from lbproxy.config.units import (
    TypedFloat,
    TypedInt,
    parse_duration,
    parse_mode_bits,
    parse_positive_duration,
    parse_positive_size,
    parse_share,
    parse_size,
    parse_text,
    plain,
    shown,
)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("250ms", 0.25), ("2s", 2.0), ("1.5m", 90.0), ("1h", 3600.0), (3, 3.0), (0.5, 0.5), ("0s", 0.0), (0, 0.0)],
)
def test_durations(written: object, seconds: float) -> None:
    assert parse_duration(written) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "s",
        "5",
        "5 s",
        "5S",
        "5d",
        "-1s",
        "1e3s",
        "5s\n",
        "٣s",
        True,
        None,
        [],
        -1,
        float("inf"),
        float("nan"),
        10**400,
    ],
)
def test_what_is_no_duration(written: object) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(written)


def test_a_duration_has_an_end_and_some_have_no_zero() -> None:
    with pytest.raises(ValueError, match="from 0 to 366 days"):
        parse_duration("99999h")
    with pytest.raises(ValueError, match="longer than 0"):
        parse_positive_duration("0ms")
    with pytest.raises(ValueError, match="cannot be off"):
        parse_positive_duration("off")
    with pytest.raises(ValueError, match="cannot be off; write 0s"):
        parse_duration(False)


@pytest.mark.parametrize(
    ("written", "size"),
    [("1B", 1), ("64KiB", 65536), ("64KB", 64000), ("1.5MiB", 1572864), ("2GB", 2 * 10**9), (0, 0), (4096, 4096)],
)
def test_sizes(written: object, size: int) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize("written", ["64K", "64kib", "", "1.1B", "-1KB", -1, 1.5, True, None, {}])
def test_what_is_no_size(written: object) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        parse_size(written)


def test_a_size_has_an_end_and_some_have_no_zero() -> None:
    with pytest.raises(ValueError, match="larger than 1024GiB"):
        parse_size("1025GiB")
    with pytest.raises(ValueError, match="larger than 0"):
        parse_positive_size(0)
    with pytest.raises(ValueError, match="cannot be off"):
        parse_positive_size("off")
    with pytest.raises(ValueError, match=r"cannot be off; write 0$"):
        parse_size("off")


def test_a_number_is_text_as_it_was_written() -> None:
    assert parse_text(TypedInt(7, "007")) == "007"
    assert parse_text(TypedFloat(1.1, "1.10")) == "1.10"
    assert parse_text(5) == "5"
    with pytest.raises(ValueError, match='quotes: "true"'):
        parse_text(True)


def test_typed_numbers_survive_copies_and_can_be_made_plain() -> None:
    number = TypedInt(7, "007")
    assert copy.deepcopy(number).text == pickle.loads(pickle.dumps(number)).text == "007"
    assert copy.deepcopy(TypedFloat(1.5, "1.50")).text == "1.50"
    made = plain({"a": [number, TypedFloat(1.5, "1.50"), "x", True]})
    assert made == {"a": [7, 1.5, "x", True]}
    assert isinstance(made, dict)
    items: list[object] = made["a"]
    assert [type(item) for item in items] == [int, float, str, bool]


@pytest.mark.parametrize("written", [-0.1, 1.1, True, "0.5", float("nan")])
def test_a_share_is_a_number_from_0_to_1(written: object) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        parse_share(written)


def test_mode_bits_are_octal_and_quoted() -> None:
    assert parse_mode_bits("0660") == parse_mode_bits("660") == 0o660
    for written in (660, "0668", "01777", "rw-rw----", True):
        with pytest.raises(ValueError, match="permission bits"):
            parse_mode_bits(written)


VALUES: tuple[object, ...] = ({}, [], True, None)


def test_values_are_shown_short_and_on_one_line() -> None:
    assert shown("a\nb") == r"'a\nb'"
    assert len(shown("x" * 500)) == 60
    assert [shown(value) for value in VALUES] == ["a mapping", "a list", "true", "nothing"]
