"""What a server of HTTP/2 says all at once is looked at in turns; all that holds for other answers holds for these."""

from __future__ import annotations

import itertools

import pytest

from lbproxy import errors
from lbproxy.dataplane.net.read_turns import ANSWERS
from lbproxy.protocol.h2 import frames
from lbproxy.protocol.h2.codes import PUSH_PROMISE
from tests.support.asking import Asked, prepared_by
from tests.support.h2_ends import frame
from tests.support.h2_servers import H2Server
from tests.unit.dataplane.server.http2_helpers import Asking

MANY = 60
OK = (200, b"hi", True)


class Hurried(Asking):
    """Time is up as soon as anybody asks."""

    def __init__(self, **keys: str) -> None:
        super().__init__(**keys)
        turns = self.services.read_turns
        turns.turn_s = turns.piece_s = 0.0

    def asked(self, count: int = MANY) -> tuple[H2Server, list[Asked]]:
        """Requests on one connection."""
        server, first = self.server()
        asked = [first, *[self.begun() for _ in range(count - 1)]]
        server.read()
        for one in asked:
            one.heard.clear()
        return server, asked


def answers(server: H2Server, count: int = MANY, *, trailers: bool = False) -> bytes:
    """All of them, as octets."""
    for number in range(1, 2 * count, 2):
        server.end.send_answer(number, 200, b"", b"", False)
        server.end.send_data(number, b"hi", not trailers)
        if trailers:
            server.end.send_trailers(number, b"x-a: b\r\n")
    return server.end.take_output()


def n_heard(asked: list[Asked]) -> int:
    return sum(one.heard[-1:] == [OK] for one in asked)


def test_many_answers_in_one_read_are_told_a_few_at_a_time() -> None:
    with Hurried() as lb:
        server, asked = lb.asked()
        server.peer.send(answers(server), turns=False)
        counts = [n_heard(asked)]
        assert server.peer.transport.is_paused
        while counts[-1] < MANY:
            lb.loop.turn()
            counts.append(n_heard(asked))
        most = ANSWERS // 24 + 1  # two frames and a head
        assert counts[0] <= most
        assert max(after - before for before, after in itertools.pairwise(counts)) <= most
        assert [one.heard for one in asked] == [[OK]] * MANY, "head and body in one piece"
        lb.loop.run()
        assert not server.peer.transport.is_paused and lb.services.read_turns.n_waiting == 0
        lb.close()


def test_where_there_is_time_all_are_told_at_once() -> None:
    with Hurried() as lb:
        lb.services.read_turns.turn_s = 1.0
        server, asked = lb.asked()
        server.peer.send(answers(server), turns=False)
        assert n_heard(asked) == MANY and "pause_reading" not in server.peer.transport.calls
        lb.close()


def test_an_answer_is_not_parted_from_its_trailers() -> None:
    with Hurried() as lb:
        server, asked = lb.asked()
        server.peer.send(answers(server, trailers=True), turns=False)
        assert 0 < n_heard(asked) < MANY
        lb.loop.run()
        assert [one.heard for one in asked] == [[OK]] * MANY
        assert [one.trailers for one in asked] == [[(b"x-a", b"b")]] * MANY
        lb.close()


def test_other_connections_are_not_held_up() -> None:
    with Hurried() as lb:
        server, asked = lb.asked()
        other = lb.ask(wants_fresh=True)
        second = lb.dialled().greet()
        other.begin(prepared_by(lb))
        lb.loop.run()
        second.read()
        other.heard.clear()
        server.peer.send(answers(server), turns=False)
        assert n_heard(asked) < MANY
        second.peer.send(answers(second, 1), turns=False)
        assert other.heard == [OK]
        lb.loop.run()
        lb.close()


def test_small_frames_without_end_are_read_in_turns() -> None:
    with Hurried() as lb:
        server, [asked] = lb.asked(1)
        server.peer.send(frames.ping(b"12345678", False) * 200, turns=False)
        server.peer.send(answers(server, 1), turns=False)
        assert len(server.peer.got()) < 100 * 17
        lb.loop.run()
        assert asked.heard == [OK]
        lb.close()


def test_a_fin_behind_what_waits_is_seen_behind_it() -> None:
    with Hurried() as lb:
        server, asked = lb.asked()
        server.peer.send(answers(server), turns=False)
        server.peer.fin()
        assert n_heard(asked) == MANY
        assert lb.runtimes[0].n_connections == 0


@pytest.mark.parametrize("n_answers", [MANY, MANY - 1])
def test_what_was_read_before_a_reset_counts(n_answers: int) -> None:
    with Hurried() as lb:
        server, asked = lb.asked()
        server.peer.send(answers(server, n_answers), turns=False)
        assert n_heard(asked) < n_answers
        server.peer.reset(turns=False)
        assert n_heard(asked) == n_answers
        assert [one.heard for one in asked[n_answers:]] == [["reset"]] * (MANY - n_answers)
        lb.loop.run()
        assert lb.services.read_turns.n_waiting == 0
        assert lb.runtimes[0].n_connections == 0


def test_a_broken_rule_among_what_waits_ends_the_connection() -> None:
    with Hurried() as lb:
        server, asked = lb.asked()
        server.peer.send(answers(server, MANY - 1) + frame(PUSH_PROMISE, 4, 1, b"\0\0\0\2"))
        assert n_heard(asked) == MANY - 1 and asked[-1].heard == ["h2_protocol"]
        assert server.read()[-1][0] == "goaway" and not server.peer.is_open


def test_giving_up_the_connection_drops_what_waits() -> None:
    with Hurried() as lb:
        server, asked = lb.asked()
        [connection] = lb.endpoint.connections
        server.peer.send(answers(server), turns=False)
        n_before = n_heard(asked)
        connection.break_off(errors.H2_PROTOCOL, "it is given up")
        lb.loop.run()
        assert n_heard(asked) == n_before < MANY
        assert [one.heard for one in asked[n_before:]] == [["h2_protocol"]] * (MANY - n_before)
        assert not connection.n_waiting and lb.services.read_turns.n_waiting == 0


def test_who_is_put_off_is_not_silent() -> None:
    with Hurried(keep_alive="{ping: 30s}") as lb:
        server, asked = lb.asked()
        lb.wait(30.0)
        assert frames.ping(b"lbproxy?", False) in server.peer.got()
        server.peer.send(answers(server), turns=False)
        lb.clock.now += 60.0
        lb.runtimes[0].sweep(lb.clock.now)
        assert server.peer.is_open and frames.ping(b"lbproxy?", False) not in server.peer.got()
        lb.loop.run()
        assert n_heard(asked) == MANY
        lb.close()


def test_the_stop_does_not_wait() -> None:
    with Hurried() as lb:
        server, asked = lb.asked()
        server.peer.send(answers(server), turns=False)
        lb.services.read_turns.close()
        assert n_heard(asked) == MANY
        lb.close()
