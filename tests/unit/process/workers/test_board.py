from __future__ import annotations

from lbproxy.process.workers.board import CONTROLLER, DRAINING, SERVING, STARTING, Board, name_of


def board(n_workers: int = 2) -> Board:
    return Board(n_workers, [0] * (8 * (n_workers + 1)))


def test_names_are_for_people() -> None:
    assert [name_of(number) for number in (CONTROLLER, 1, 12)] == ["controller", "worker 1", "worker 12"]


def test_a_process_serves_from_when_it_says_so_until_it_is_reaped() -> None:
    made = board()
    made.started(2, 4711, 10.0)
    assert (made.pid(2), made.state(2), made.is_serving(2)) == (4711, STARTING, False)
    made.tell(2, SERVING)
    assert made.is_serving(2)
    assert not made.is_serving(1)
    made.tell(2, DRAINING)
    assert not made.is_serving(2)
    made.tell(2, SERVING)
    made.ended(2)
    assert (made.pid(2), made.is_serving(2)) == (0, False)


def test_silence_begins_with_the_start_and_ends_with_each_beat() -> None:
    made = board()
    made.started(1, 4711, 10.0)
    assert made.silent_s(1, 12.5) == 2.5
    made.beat(1, 12.0)
    assert made.silent_s(1, 12.5) == 0.5
    assert made.silent_s(1, 11.0) == 0.0


def test_a_loop_has_run_when_it_has_beaten() -> None:
    made = board()
    made.started(1, 4711, 10.0)
    assert not made.has_run(1)
    made.beat(1, 12.0)
    assert made.has_run(1) and not made.has_run(2)
    made.started(1, 4712, 13.0)
    assert not made.has_run(1)


def test_restarts_and_generations_outlive_a_process() -> None:
    made = board()
    for _ in range(3):
        made.started(1, 4711, 0.0)
        made.ended(1)
        made.restarted(1)
    made.keeps_to(2, 7)
    assert [made.restarts(number) for number in made.workers] == [3, 0]
    assert made.generation(2) == 7
    assert made.restarts(CONTROLLER) == 0
