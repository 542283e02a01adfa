"""Who is stood in for hears of everything but what is read."""

from __future__ import annotations

from lbproxy.dataplane.net.stand_in import StandIn


class Owner:
    def __init__(self) -> None:
        self.heard: list[object] = []

    def eof_received(self) -> bool:
        self.heard.append("eof")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.heard.append(exc)

    def pause_writing(self) -> None:
        self.heard.append("pause")

    def resume_writing(self) -> None:
        self.heard.append("resume")


def test_the_owner_hears_of_everything() -> None:
    owner, error = Owner(), ConnectionResetError()
    reader = StandIn(owner)
    reader.pause_writing()
    reader.resume_writing()
    assert reader.eof_received() is True
    reader.connection_lost(error)
    assert owner.heard == ["pause", "resume", "eof", error]
