"""One value in place of a section: what is named is a key of that section. Whole messages stand in slips.txt."""

from __future__ import annotations

import pytest

from lbproxy.config import short_forms
from lbproxy.config.sections import available_sections

SECTIONS = {section.__name__: section for _, section in available_sections()}


@pytest.mark.parametrize("name", short_forms.MEANT)
def test_every_key_that_may_be_meant_exists(name: str) -> None:
    assert set(short_forms.MEANT[name]) <= set(SECTIONS[name].model_fields)


@pytest.mark.parametrize("name", short_forms.EXAMPLES)
def test_every_example_has_keys_that_exist(name: str) -> None:
    keys = {item.partition(":")[0] for item in short_forms.EXAMPLES[name].strip("{}").split(", ") if ":" in item}
    assert keys and keys <= set(SECTIONS[name].model_fields)


@pytest.mark.parametrize(
    ("path", "given", "said"),
    [
        (("pools", "p", "queue"), 7, "did you mean {size: 7}?"),
        (("pools", "p", "queue"), "7s", "did you mean {timeout: 7s}?"),
        (("pools", "p", "queue"), "long", ""),
        (("pools", "p", "queue"), False, ""),
        (("pools", "p", "queue"), None, ""),
        (("pools", "p", "queue"), "Yes", "leave it out: without it the defaults hold"),
        (("pools", "p", "headers"), True, ""),
        (("pools", "p", "headers"), "x", ""),
        (("nonsense",), 7, ""),
        ((), 7, ""),
    ],
)
def test_what_is_said(path: tuple[str, ...], given: object, said: str) -> None:
    assert short_forms.suggestion(path, given) == said
