"""Walking over the models: every way to a section ends at the same model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import pytest
from pydantic import BaseModel

from lbproxy.config.availability import UNAVAILABLE_KEYS
from lbproxy.config.model import (
    Admin,
    Config,
    Expect,
    HeaderEdits,
    HealthCheck,
    Listener,
    Match,
    Pool,
    PoolTls,
    RetryOverride,
    Route,
    ServerSpec,
    StrategySpec,
)
from lbproxy.config.problems import Path
from lbproxy.config.sections import available_fields, available_sections, holds_many, section_at, section_of


class Inner(BaseModel):
    size: int = 0


@pytest.mark.parametrize(
    "annotation",
    [
        Inner,
        Inner | None,
        None | Inner,
        tuple[Inner, ...],
        tuple[Inner, ...] | None,
        Mapping[str, Inner],
        Mapping[Annotated[str, "words"], Inner],
        Annotated[Inner | None, "words"],
        tuple[Annotated[Inner, "words"], ...],
    ],
    ids=str,
)
def test_a_section_is_found_in_a_type(annotation: object) -> None:
    assert section_of(annotation) is Inner


@pytest.mark.parametrize(
    "annotation", [int, str | None, tuple[int, ...], Mapping[str, str], Mapping[Inner, int], None, "Inner"], ids=str
)
def test_other_types_have_no_section(annotation: object) -> None:
    assert section_of(annotation) is None


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (tuple[Inner, ...], True),
        (Mapping[str, Inner], True),
        (dict[str, int], True),
        (Inner, False),
        (Inner | None, False),
        (str, False),
        (None, False),
    ],
    ids=str,
)
def test_lists_and_mappings_by_name_hold_many(annotation: object, expected: bool) -> None:
    assert holds_many(annotation) is expected


@pytest.mark.parametrize(
    ("path", "section"),
    [
        ((), Config),
        (("admin",), Admin),
        (("listeners", 0), Listener),
        (("listeners", 7, "routes", 3), Route),
        (("listeners", 0, "routes", 0, "match"), Match),
        (("listeners", 0, "routes", 0, "retry"), RetryOverride),
        (("listeners", 0, "routes", 0, "headers", "response"), HeaderEdits),
        (("pools", "p"), Pool),
        (("pools", "p", "strategy"), StrategySpec),
        (("pools", "p", "health_check"), HealthCheck),
        (("pools", "p", "health_check", "expect"), Expect),
    ],
)
def test_the_section_at_a_path(path: Path, section: type[BaseModel]) -> None:
    assert section_at(path) is section


def test_a_pool_may_be_called_like_a_key() -> None:
    assert section_at(("pools", "servers")) is Pool
    assert section_at(("pools", "servers", "servers", 0)) is ServerSpec
    assert section_at(("pools", "no_such_key", "dns")) is section_at(("pools", "p", "dns")) is not None


@pytest.mark.parametrize(
    "path",
    [
        ("no_such_key",),
        ("workers",),
        ("workers", "inner"),
        ("admin", "bind"),
        ("admin", "no_such_key", "bind"),
        ("pools", "p", "no_such_key"),
        ("listeners", 0, "routes", 0, "match", "headers"),
        ("listeners", 0, "routes", 0, "match", "headers", "X-A", "deeper"),
        (5,),
    ],
)
def test_no_section_at_a_path(path: Path) -> None:
    assert section_at(path) is None


@pytest.mark.parametrize(("section", "path"), [(Config, ""), (Listener, "listeners.*"), (Pool, "pools.*")])
def test_fields_of_a_section_are_all_but_the_unavailable_ones(section: type[BaseModel], path: str) -> None:
    prefix = path + "." if path else ""
    refused = {line.removeprefix(prefix) for line in UNAVAILABLE_KEYS if line.startswith(prefix)}
    expected = [name for name in section.model_fields if name not in refused]
    assert [name for name, _ in available_fields(section, path)] == expected
    assert all(info is section.model_fields[name] for name, info in available_fields(section, path))


@pytest.mark.parametrize("line", UNAVAILABLE_KEYS)
def test_whether_a_field_is_available_depends_on_the_path(line: str) -> None:
    where, _, name = line.rpartition(".")
    section = section_at(tuple(where.split(".")))
    assert section is not None
    assert name not in dict(available_fields(section, where))
    assert name in dict(available_fields(section, "elsewhere"))


def test_what_no_user_writes_is_no_field() -> None:
    assert "options" in StrategySpec.model_fields
    assert [name for name, _ in available_fields(StrategySpec, "pools.*.strategy")] == ["name", "python"]


def test_every_section_stands_at_its_path() -> None:
    found = list(available_sections())
    for place, section in found:
        assert section_at(tuple(place.split("."))) is section, place
    places = [place for place, _ in found]
    assert len(places) == len(set(places))
    assert {"admin", "listeners.*", "listeners.*.routes.*.match", "pools.*", "pools.*.servers.*"} <= set(places)
    outermost = [place.removesuffix(".*") for place in places if "." not in place.removesuffix(".*")]
    assert outermost == [
        name for name in Config.model_fields if name not in ("workers", "watch", "state_file", "trusted_proxies")
    ]


def test_a_section_comes_before_what_is_in_it() -> None:
    places = [place for place, _ in available_sections()]
    for index, place in enumerate(places):
        inside = [position for position, other in enumerate(places) if other.startswith(place + ".")]
        assert inside == list(range(index + 1, index + 1 + len(inside))), place


def test_nothing_below_an_unavailable_key_is_a_section() -> None:
    assert [
        place
        for place, _ in available_sections()
        for line in UNAVAILABLE_KEYS
        if place == line or place.startswith(line + ".")
    ] == []


def test_sections_below_another_one() -> None:
    assert list(available_sections(HealthCheck, "pools.*.health_check")) == [
        ("pools.*.health_check.expect", Expect),
        ("pools.*.health_check.tls", PoolTls),
    ]
    assert list(available_sections(Match)) == []
