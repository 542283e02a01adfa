"""Which listener a test means, and what is not said twice. The complaints as users see them are in refused.txt."""

from __future__ import annotations

import pytest

from lbproxy.config.loader import ConfigError, load_text
from lbproxy.config.model import Config
from lbproxy.config.tests_checks import listener_of
from lbproxy.config.tests_model import Trial


@pytest.mark.parametrize(
    ("names", "asked", "expected"),
    [(["a"], None, "a"), (["a", "b"], "b", "b"), (["a", "b"], None, None), (["a"], "x", None)],
)
def test_the_listener_of_a_test(names: list[str], asked: str | None, expected: str | None) -> None:
    listeners = [{"bind": f":{number}", "name": name, "pool": "p"} for number, name in enumerate(names)]
    config = Config.model_validate({"listeners": listeners})
    request = {} if asked is None else {"listener": asked}
    found = listener_of(Trial.model_validate({"request": request, "expect": {}}), config)
    assert (found.name if found else None) == expected


def complaints(pool: str) -> list[str]:
    text = f"""\
listeners: [{{bind: ':1', pool: p}}]
pools: {{p: {pool}}}
tests: [{{request: /, given: {{p/b: down}}, expect: {{server: b, pool: p}}}}]
"""
    with pytest.raises(ConfigError) as refused:
        load_text(text, "lb.yaml", {})
    return [problem.path for problem in refused.value.problems]


def test_what_is_wrong_in_a_pool_is_not_said_again_of_the_tests_that_name_it() -> None:
    assert complaints("{servers: ['b']}") == ["pools.p.servers[0]"]
    assert complaints("7") == ["pools.p"]


def test_a_server_that_is_not_there_is_missed_where_it_is_named() -> None:
    assert complaints("{servers: ['a:1']}") == ["tests[0].given.p/b", "tests[0].expect.server"]
