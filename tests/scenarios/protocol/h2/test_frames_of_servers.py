"""Frame by frame, what RFC 9113 and RFC 7541 say of a server's frames, sent to a running lbproxy by a server."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from lbproxy.protocol.h2.codes import ACK, DATA, END_STREAM, SETTINGS
from tests.support.client import Client
from tests.support.daemon import LbProxy
from tests.support.h2_cases import ANSWERS, BYSTANDER, CUT, ENDS, RESETS, STREAM, Case, settings
from tests.support.h2_cases_of_servers import OK, cases
from tests.support.h2_ends import frame, headers
from tests.support.h2_stage import before_one_server
from tests.support.h2_wire import FrameSocket
from tests.support.rig import get
from tests.support.wire import Ended, WireError

CASES = cases()


class Stage:
    """A daemon, and the socket on which it finds its server."""

    def __init__(self, lb: LbProxy, listener: socket.socket) -> None:
        self.lb = lb
        self.listener = listener

    def client(self) -> Client:
        return Client(self.lb.port("in"))

    def accept(self) -> FrameSocket:
        sock, _ = self.listener.accept()
        return FrameSocket(sock, preface=True)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with before_one_server(tmp_path_factory.mktemp("frames")) as (lb, listener):
        yield Stage(lb, listener)


class Talk:
    """Two clients whose requests are on one connection to the server: that of the case, and one beside it."""

    def __init__(self, stage: Stage, stack: contextlib.ExitStack, *, is_raw: bool = False) -> None:
        self.beside = stack.enter_context(stage.client())
        self.beside.send(get("/beside"))
        self.peer = stack.enter_context(stage.accept())
        self.asking = self.beside
        if is_raw:
            self.peer.acks = False  # nothing is said before the case says it
            self.peer.read_until(lambda: self.peer.on(BYSTANDER).is_ended, "the first request")
            return
        self.peer.send(settings((3, 100)))
        self.peer.read_until(lambda: bool([one for one in self.peer.kinds(SETTINGS) if one[1] & ACK]), "SETTINGS ACK")
        self.peer.round_trip(b"at first")
        self.asking = stack.enter_context(stage.client())
        self.asking.send(get("/case"))
        self.peer.read_until(lambda: self.peer.on(STREAM).is_ended, "the second request")

    def status(self) -> int:
        """Of the answer to the case's request: 0 if it was cut."""
        try:
            return self.asking.response().status
        except (Ended, WireError):
            return 0


def check_outcome(talk: Talk, case: Case) -> None:
    peer, want = talk.peer, case.want
    heard = peer.on(1 if case.is_raw else want.stream)
    if want.kind == ENDS:
        peer.read_to_end()
        assert peer.goaway in want.codes, peer.summary()
        if case.is_raw:
            assert talk.status() == 502
        else:
            assert talk.beside.response().status == 502
        return
    if want.kind == RESETS:
        peer.read_until(lambda: heard.reset is not None, "RST_STREAM")
        assert heard.reset in want.codes, peer.summary()
    if want.stream == BYSTANDER:
        assert talk.beside.response().status == 502
        return
    if want.kind == ANSWERS:
        assert talk.status() == want.codes[0], peer.summary()
    elif want.kind == RESETS:
        assert talk.status() in (0, 502), peer.summary()
    elif want.kind == CUT:
        assert talk.status() == 0
        if want.codes:
            peer.read_until(lambda: heard.reset is not None, "RST_STREAM")
            assert heard.reset in want.codes, peer.summary()
    if not case.is_raw:
        peer.round_trip(b"at last!")
        if want.kind not in (RESETS, CUT):
            assert heard.reset is None, peer.summary()
        peer.send(headers(BYSTANDER, OK), frame(DATA, END_STREAM, BYSTANDER, b"beside"))
        assert talk.beside.response().body == b"beside"
        assert peer.goaway in (None, 0), peer.summary()


@pytest.mark.parametrize("case", CASES, ids=[case.ident for case in CASES])
def test_frames_of_a_server(stage: Stage, case: Case) -> None:
    with contextlib.ExitStack() as stack:
        talk = Talk(stage, stack, is_raw=case.is_raw)
        for step in case.steps:
            assert isinstance(step, bytes)
            talk.peer.send(step)
        check_outcome(talk, case)
        talk.peer.reset()  # from a FIN lbproxy would learn for how long this server keeps connections
