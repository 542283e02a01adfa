"""News go from process to process."""

from __future__ import annotations

import pickle

import pytest

from lbproxy.process.workers.news import DialFailed, Learned


@pytest.mark.parametrize("message", [DialFailed("p", "s", True), Learned("p", "s", 1.5, 7)])
def test_news_arrive_as_they_were_sent(message: object) -> None:
    assert pickle.loads(pickle.dumps(message)) == message
