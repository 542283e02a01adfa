"""Each codec really serves the calls that its time is of."""

from __future__ import annotations

import pytest

from benchmarks.micro import h2_codec
from benchmarks.micro.h2_codec import MESSAGE, Conversation, Hyper, Own
from lbproxy.protocol.h2.settings import OwnSettings
from tests.support.h2_ends import RecordingEnd, split_frames


@pytest.mark.parametrize("varies", [False, True])
def test_the_requests_are_calls_of_grpc(varies: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h2_codec, "COUNT", 20)
    begin, made = h2_codec.requests(varies)
    end = RecordingEnd(True, OwnSettings())
    end.received(begin, 0.0)
    for octets in made:
        end.received(octets, 0.0)
    assert end.words() == ["settings"] + ["head", "data"] * 20
    assert end.heads[0].is_grpc
    assert len(end.heads[0].fields) == 5
    assert (len({head.lines for head in end.heads}) == 20) == varies
    assert all(entry[2] == MESSAGE for entry in end.seen if entry[0] == "data")


def test_a_cost_is_that_of_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h2_codec, "COUNT", 5)
    assert 0.0 < h2_codec.cost_us(Own(True), 3) < 1e6
    assert [name for name, _ in h2_codec.kinds()][:2] == ["lbproxy", "h2"]


@pytest.mark.parametrize("kind", [Own, Hyper])
def test_each_is_answered_with_head_data_and_trailers(
    kind: type[Conversation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(h2_codec, "COUNT", 5)
    conversation = kind(True)
    said: list[bytes] = []
    monkeypatch.setattr(conversation, "output", said.append, raising=False)
    for _ in range(12):
        conversation.step()
    assert len(said) == 12
    assert [(frame[0], frame[1]) for frame in split_frames(said[-1])] == [(1, 4), (0, 0), (1, 5)]
