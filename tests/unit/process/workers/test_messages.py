from __future__ import annotations

import pickle

import pytest

from lbproxy.config.loader import load_text
from lbproxy.process.workers import messages

CONFIG = load_text(
    "listeners: [{bind: ':1', pool: p, limits: {min_rate: off}}]\n"
    "trusted_proxies: [10.0.0.0/8, unix]\n"
    "pools: {p: {servers: ['127.0.0.1:2', {address: 'unix:/a', weight: 3}], circuit_breaker: {}}}\n",
    "lb.yaml",
    {},
).config


@pytest.mark.parametrize(
    "message",
    [
        messages.Hello(3),
        messages.Welcome(),
        messages.Prepare(4, CONFIG, ("a",)),
        messages.Prepared(4, "no"),
        messages.Commit(4, is_wanted=False),
        messages.Committed(4),
        messages.Find(1, "a"),
        messages.Found(1, ({"ts": "2026"},), 10),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_arrives_as_it_was(message: object) -> None:
    assert pickle.loads(pickle.dumps(message)) == message
