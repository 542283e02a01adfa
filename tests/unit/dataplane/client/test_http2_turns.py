"""A client's connection of HTTP/2 that sends much at once is read in turns; all that holds for others holds for it."""

from __future__ import annotations

import pytest

from lbproxy.dataplane.client.connection import NEVER
from lbproxy.dataplane.client.http2 import Http2Connection
from lbproxy.dataplane.client.http2_connection import BEHIND_S, MOST_HELD, MOST_UNTAKEN
from lbproxy.dataplane.net.socket_transport import FIRST_READ
from lbproxy.protocol.h2 import frames
from lbproxy.protocol.h2.codes import DATA, ENHANCE_YOUR_CALM, MAX_STREAM_ID, NO_ERROR, PREFACE, PROTOCOL_ERROR
from tests.support.fake_transport import FakeLb, Peer, ok
from tests.support.h2_ends import RecordingEnd, frame, headers
from tests.support.http2_client import Http2Client
from tests.unit.dataplane.client.helpers import limited

HERE = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"h"), (b":path", b"/here")]
AWAY = [*HERE[:3], (b":path", b"/a")]
AT_ONCE = 4  # requests, in a turn in which nobody else was
BEGIN = PREFACE + frames.settings([])
MANY = range(1, 40, 2)


def hurried(limits: str = "") -> FakeLb:
    """Time is up as soon as anybody asks."""
    lb = FakeLb(limited(limits))
    turns = lb.services.read_turns
    turns.turn_s = turns.piece_s = 0.0
    return lb


def connected(lb: FakeLb, count: int) -> list[Peer]:
    """So many clients that have begun."""
    clients = [lb.connect() for _ in range(count)]
    for client in clients:
        client.send(BEGIN)
        client.got()
    return clients


def flooding(lb: FakeLb, octets: bytes) -> Peer:
    """A client of which a part of this waits for its turn."""
    [client] = connected(lb, 1)
    client.send(octets, turns=False)
    return client


def asks(fields: list[tuple[bytes, bytes]], numbers: range = MANY) -> bytes:
    return b"".join([headers(number, fields, is_end=True) for number in numbers])


def of(lb: FakeLb) -> Http2Connection:
    """The first connection."""
    found = [item for item in lb.services.swept if isinstance(item, Http2Connection)]
    return next(item for item in found if item.codec.n_waiting)


def n_answered(lb: FakeLb) -> int:
    return len(lb.ends)


def test_much_is_read_in_turns() -> None:
    with hurried() as lb:
        client = flooding(lb, asks(HERE))
        assert n_answered(lb) == AT_ONCE
        assert client.transport.is_paused
        for n_turns in range(1, 5):
            lb.loop.turn()
            assert n_answered(lb) == AT_ONCE + n_turns
        lb.loop.run()
        assert lb.ends == ["ok"] * len(MANY)
        assert not client.transport.is_paused


def test_answers_come_in_the_order_of_the_requests() -> None:
    with hurried() as lb:
        client = flooding(lb, asks(HERE))
        lb.loop.run()
        end = RecordingEnd(False)
        for _ in MANY:
            end.open_stream()
        end.received(frames.settings([]) + client.got(), 0.0)
        assert [entry[1] for entry in end.seen if entry[0] == "head"] == list(MANY)


def test_others_are_served_meanwhile_and_directly() -> None:
    with hurried() as lb:
        other, *floods = connected(lb, 4)
        for client in floods:
            client.send(asks(HERE), turns=False)
        before = n_answered(lb)
        other.send(headers(1, HERE, is_end=True), turns=False)
        assert n_answered(lb) == before + 1
        assert not other.transport.is_paused
        lb.loop.run()
        assert n_answered(lb) == len(floods) * len(MANY) + 1


def test_those_who_flood_share_a_turn() -> None:
    with hurried() as lb:
        for client in connected(lb, 10):
            client.send(asks(HERE), turns=False)
        assert lb.services.read_turns.n_waiting == 10
        for _ in range(20):
            before = n_answered(lb)
            lb.loop.turn()
            assert n_answered(lb) == before + 1
        lb.loop.run()
        assert n_answered(lb) == 10 * len(MANY)


def test_in_a_turn_of_the_loop_the_first_has_most_and_others_a_little() -> None:
    with hurried() as lb:
        counts = []
        for client in connected(lb, 5):
            before = n_answered(lb)
            client.send(asks(HERE), turns=False)
            counts.append(n_answered(lb) - before)
        assert counts == [AT_ONCE, 1, 1, 1, 1]
        lb.loop.run()


def test_where_time_is_left_all_is_read_at_once() -> None:
    with FakeLb(limited("")) as lb:
        client = flooding(lb, asks(HERE))
        assert n_answered(lb) == len(MANY)
        assert "pause_reading" not in client.transport.calls


def test_a_body_behind_its_head_is_one_piece_for_the_server() -> None:
    with hurried() as lb:
        client = Http2Client(lb)
        for _ in range(AT_ONCE + 2):
            client.begin("POST", "/a", body=b"hello", turns=False)
        client.carry()
        for _ in range(AT_ONCE + 2):
            server = client.server()
            assert server.got().endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
            client.answered_by(server, ok())
        assert lb.ends == ["ok"] * (AT_ONCE + 2)


def test_who_waits_is_not_silent() -> None:
    with hurried() as lb:
        flooding(lb, asks(HERE))
        waiting = of(lb)
        assert waiting.idle_since() == NEVER
        assert not waiting.makes_way()
        waiting.sweep(lb.clock() + 3600.0)
        lb.loop.run()
        assert lb.ends == ["ok"] * len(MANY)


def test_time_counts_again_afterwards() -> None:
    with hurried() as lb:
        client = flooding(lb, asks(HERE) + headers(41, HERE)[:5])
        lb.loop.run()
        lb.advance(1.0)
        assert client.is_open
        lb.advance(1.5)
        assert client.saw_fin, "a head that is dripped has not long"
        assert lb.of_listener("h2_goaways_total", "timeout") == 1


def test_what_waits_is_buffered() -> None:
    with hurried() as lb:
        octets = asks(HERE)
        flooding(lb, octets)
        waiting = of(lb)
        rest = len(octets) * (len(MANY) - AT_ONCE) // len(MANY)
        assert abs(waiting.codec.n_waiting - rest) < 40
        before = waiting.buffered_bytes()
        lb.loop.run()
        assert before - waiting.buffered_bytes() >= rest - 40


def test_a_fin_behind_what_waits_is_seen_behind_it() -> None:
    with hurried() as lb:
        client = flooding(lb, asks(HERE))
        client.fin()
        assert lb.ends == ["ok"] * len(MANY)
        assert not client.is_open


def test_so_are_the_requests_of_one_that_leaves() -> None:
    with hurried() as lb:
        client = flooding(lb, asks(AWAY))
        client.fin()
        assert lb.ends == ["client_abort"] * len(MANY)


def test_a_reset_ends_what_waits() -> None:
    with hurried() as lb:
        client = flooding(lb, asks(AWAY))
        client.reset()
        assert lb.ends == ["client_abort"] * AT_ONCE
        assert lb.services.read_turns.n_waiting == 0


def test_a_stop_is_told_and_what_waits_is_served() -> None:
    with hurried() as lb:
        client = flooding(lb, asks(HERE) + frame(6, 1, 0, b"lbproxy\0"))
        of(lb).begin_drain(lb.clock())
        lb.loop.run()
        assert lb.ends == ["ok"] * len(MANY)
        said = client.got()
        assert frames.goaway(MAX_STREAM_ID, NO_ERROR, b"stop") in said
        assert frames.goaway(MANY[-1], NO_ERROR, b"stop") in said
        assert client.saw_fin


def test_the_end_of_the_grace_period_does_not_wait() -> None:
    with hurried() as lb:
        client = flooding(lb, asks(AWAY))
        of(lb).shut_down()
        lb.loop.run()
        assert lb.ends == ["draining"] * AT_ONCE
        assert not client.is_open


def test_a_broken_rule_among_what_waits_ends_the_connection() -> None:
    with hurried() as lb:
        octets = asks(HERE) + frame(DATA, 0, 0, b"x") + asks(HERE, range(41, 60, 2))
        client = flooding(lb, octets)
        lb.loop.run()
        assert lb.ends == ["ok"] * len(MANY)
        assert frames.goaway(MANY[-1], PROTOCOL_ERROR, b"")[9:17] in client.got()
        assert client.saw_fin
        assert not client.transport.is_paused, "what comes is discarded, up to the client's FIN"


@pytest.mark.parametrize("is_hurried", [False, True])
def test_a_flood_is_one_after_the_same_frames(is_hurried: bool) -> None:
    with hurried("resets: 5 in 10s") if is_hurried else FakeLb(limited("resets: 5 in 10s")) as lb:
        client = flooding(
            lb,
            b"".join([headers(n, AWAY, is_end=True) + frame(3, 0, n, bytes(4)) for n in MANY]),
        )
        lb.loop.run()
        assert frames.goaway(11, ENHANCE_YOUR_CALM, b"")[9:17] in client.got()
        assert lb.ends == ["client_abort"] * 6


def test_who_does_not_take_its_answers_is_not_read_after_its_turn_either() -> None:
    with hurried() as lb:
        client = flooding(lb, asks(HERE))
        client.stop_reading(MOST_UNTAKEN + 1)
        lb.loop.run()
        assert lb.ends == ["ok"] * len(MANY), "what was read is looked at"
        assert client.transport.is_paused
        client.read_again()
        assert not client.transport.is_paused


def test_who_takes_them_again_is_not_read_before_its_turn() -> None:
    with hurried() as lb:
        client = flooding(lb, asks(HERE))
        client.transport.unsent = MOST_UNTAKEN + 1
        client.transport.protocol.pause_writing()
        lb.services.poller.turn_end.flush()
        client.transport.unsent = 0
        client.transport.protocol.resume_writing()
        assert client.transport.is_paused
        lb.loop.run()
        assert not client.transport.is_paused
        assert lb.ends == ["ok"] * len(MANY)


def test_what_comes_all_the_same_stands_behind_what_waits() -> None:
    with hurried() as lb:
        client = flooding(lb, asks(HERE))
        client.transport.protocol.data_received(headers(41, HERE, is_end=True))  # type: ignore[union-attr]
        lb.loop.run()
        assert lb.ends == ["ok"] * (len(MANY) + 1)


def test_answers_that_nobody_takes_hold_no_more_than_if_all_had_begun_at_once() -> None:
    with hurried() as lb:
        client = flooding(lb, frames.settings([(4, 0)]) + asks(AWAY, range(1, 200, 2)))
        lb.loop.turn()
        for _ in range(100):
            server = lb.accept(turns=False)
            lb.loop.turn()
            server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 250000\r\n\r\n" + bytes(200_000), turns=False)
        [connection] = [item for item in lb.services.swept if isinstance(item, Http2Connection)]
        assert MOST_HELD < connection.buffered_bytes() <= 2 * MOST_HELD + FIRST_READ
        client.reset()


# --- the end of many requests ---------------------------------------------------------------------------------------


def asking_servers(lb: FakeLb) -> tuple[Http2Client, list[Peer]]:
    """A client with twenty requests, each of which a server has."""
    client = Http2Client(lb)
    servers = []
    for _ in range(20):
        client.begin()
        servers.append(client.server())
    return client, servers


def n_open(servers: list[Peer]) -> int:
    return sum(server.is_open for server in servers)


def test_many_requests_end_a_few_at_a_time() -> None:
    with hurried() as lb:
        client, servers = asking_servers(lb)
        client.peer.reset(turns=False)
        assert lb.listener.n_streams == 0
        assert n_open(servers) == 20
        lb.loop.turn()
        lb.loop.turn()
        assert n_open(servers) == 18
        assert lb.ends == ["client_abort"] * 2
        lb.loop.run()
        assert n_open(servers) == 0
        assert lb.ends == ["client_abort"] * 20


def test_few_end_at_once() -> None:
    with hurried() as lb:
        client = Http2Client(lb)
        for _ in range(8):
            client.begin()
        servers = [client.server() for _ in range(8)]
        client.peer.reset(turns=False)
        assert n_open(servers) == 0


def test_an_answer_that_comes_before_its_request_has_ended_goes_nowhere() -> None:
    with hurried() as lb:
        client, servers = asking_servers(lb)
        client.peer.reset(turns=False)
        servers[10].send(ok(), turns=False)
        servers[11].send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", turns=False)
        servers[12].send(b"HTTP/1.1 103 Early Hints\r\n\r\n", turns=False)
        servers[13].reset(turns=False)
        lb.loop.run()
        assert len(lb.ends) == 20
        assert lb.ends.count("client_abort") >= 17


def test_so_it_is_where_the_connection_is_ended() -> None:
    with hurried() as lb:
        client, servers = asking_servers(lb)
        client.raw(frame(DATA, 0, 0, b"x"))
        assert client.goaways == [(MANY[-1], PROTOCOL_ERROR)]
        assert client.peer.saw_fin
        assert n_open(servers) == 0
        assert lb.ends == ["h2_connection"] * 20


def test_those_that_have_not_ended_do_at_the_stop() -> None:
    with hurried() as lb:
        client, servers = asking_servers(lb)
        client.peer.reset(turns=False)
        lb.services.read_turns.close()
        assert n_open(servers) == 0
        assert lb.ends == ["client_abort"] * 20


# --- who is looked at first -----------------------------------------------------------------------------------------


def many(lb: FakeLb, client: Http2Client) -> list[Peer]:
    """Requests at once, for some of which there is no time, and the servers that have them."""
    for _ in MANY:
        client.begin(turns=False)
    client.carry()
    return [client.server() for _ in MANY]


def test_who_asks_for_more_than_there_is_time_for_is_looked_at_behind_others_and_so_are_its_answers() -> None:
    with hurried() as lb:
        client = Http2Client(lb)
        servers = many(lb, client)
        assert client.peer.transport.is_behind
        are_behind = [server.transport.is_behind for server in servers]
        assert not any(are_behind[:AT_ONCE]) and all(are_behind[AT_ONCE + 1 :])
        for server in servers:
            client.answered_by(server, ok())
        assert not any(server.transport.is_behind for server in servers), "another one's request may be the next"
        assert lb.ends == ["ok"] * len(MANY)


def test_after_a_while_it_is_as_any_other() -> None:
    with hurried() as lb:
        client = Http2Client(lb)
        servers = many(lb, client)
        for server in servers:
            client.answered_by(server, ok())
        lb.clock.now += BEHIND_S / 2
        client.begin()
        assert client.peer.transport.is_behind
        [asked] = [server for server in servers if server.transport.is_behind]
        client.answered_by(asked, ok())
        lb.clock.now += BEHIND_S / 2
        client.begin()
        assert not client.peer.transport.is_behind
        assert not asked.transport.is_behind
        client.answered_by(asked, ok())
        assert lb.ends == ["ok"] * (len(MANY) + 2)


def test_others_are_not_behind() -> None:
    with hurried() as lb:
        many(lb, Http2Client(lb))
        other = Http2Client(lb)
        other.begin()
        assert not other.peer.transport.is_behind
        assert not other.server().transport.is_behind
