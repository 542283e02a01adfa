"""What a queue is by default, and what its classes are; complaints as users see them are in refused.txt."""

from __future__ import annotations

from lbproxy.config.loader import load_text
from lbproxy.config.queue_model import Queue


def queue(text: str) -> Queue:
    made = load_text(
        f"listeners: [{{bind: ':1', pool: p}}]\npools: {{p: {{servers: ['a:1'], max_inflight: 1, queue: {text}}}}}\n",
        "lb.yaml",
        {},
    )
    assert not made.warnings
    return made.config.pools["p"].queue


def test_nobody_has_turns_unless_it_is_said() -> None:
    assert (queue("{}").fair_by, queue("{}").priority) == (None, None)
    assert (queue("{fair_by: off}").fair_by, queue("{priority: off}").priority) == (None, None)


def test_three_classes_of_which_trusted_proxies_choose() -> None:
    said = queue("{priority: {}}").priority
    assert said is not None
    assert (said.header, said.classes, said.is_anybody) == ("X-Priority", ("high", "normal", "low"), False)
    said = queue("{priority: {header: x-tier, from: any, classes: [paid, free]}}").priority
    assert said is not None
    assert (said.header, said.classes, said.is_anybody) == ("x-tier", ("paid", "free"), True)


def test_every_key_of_the_head_can_have_turns() -> None:
    for key in ("client_ip", "header:X-Tenant", "cookie:user", "query:user", "path", "host"):
        assert queue(f"{{fair_by: '{key}'}}").fair_by == key
