from __future__ import annotations

import pytest

from lbproxy.control.live_values import Refused, Value, lets_in, read_values, shown
from lbproxy.domain.states import Admin


def test_values_are_read_as_calls_write_them() -> None:
    asked = read_values({"admin": "maint", "weight": 3, "max_inflight": "off"})
    assert asked == {"admin": Admin.MAINT, "weight": 3, "max_inflight": 0}
    assert read_values({"weight": "file"}) == {"weight": None}


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(Refused) as caught:
        read_values({"wait": 3, "weight": -1, "admin": "up"})
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["wait", "weight", "admin"]
    with pytest.raises(Refused, match="nothing to change"):
        read_values({})


@pytest.mark.parametrize(
    ("key", "old", "new", "more"),
    [
        ("admin", Admin.DRAIN, Admin.READY, True),
        ("admin", Admin.READY, Admin.MAINT, False),
        ("weight", 0, 1, True),
        ("weight", 1, 0, False),
        ("max_inflight", 2, 3, True),
        ("max_inflight", 3, 0, True),
        ("max_inflight", 0, 3, False),
    ],
)
def test_which_changes_let_more_requests_in(key: str, old: Value, new: Value, more: bool) -> None:
    assert lets_in(key, old, new) is more


def test_json_has_null_for_no_limit_and_words_for_states() -> None:
    assert (shown("max_inflight", 0), shown("weight", 0), shown("admin", Admin.DRAIN)) == (None, 0, "drain")
