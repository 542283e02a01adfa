"""What a kind sets, and that a pool's own keys win, one by one."""

from __future__ import annotations

import pytest

from lbproxy.config.kinds import KINDS, Default, in_force, parse_kind
from lbproxy.config.pool_model import Pool


def pool(kind: str, **own: object) -> Pool:
    return Pool.model_validate({"servers": ["a:1"], "kind": kind, **own})


PLAIN = Pool.model_validate({"servers": ["a:1"]})
EVERY = [pytest.param(kind, item, id=f"{kind}-{item.key}") for kind, items in KINDS.items() for item in items]


@pytest.mark.parametrize(("kind", "item"), EVERY)
def test_each_value_of_the_table_is_in_force(kind: str, item: Default) -> None:
    expected = str(item.value).lower() if isinstance(item.value, bool) else str(item.value)
    assert dict(in_force(kind, pool(kind)))[item.key] == expected


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_kind_does_not_name_is_as_ever(kind: str) -> None:
    made = pool(kind).model_dump(exclude={"kind"})
    plain = PLAIN.model_dump(exclude={"kind"})
    for item in KINDS[kind]:
        section, _, _ = item.key.partition(".")
        made.pop(section, None)
        plain.pop(section, None)
    assert made == plain


def test_no_kind_sets_nothing() -> None:
    assert PLAIN.kind is None
    assert list(in_force(None, PLAIN)) == []


def test_no_kind_lets_a_request_be_repeated() -> None:
    assert [kind for kind in KINDS if pool(kind).retry.idempotent] == []


def test_idle_connections_are_closed_before_the_server_does_it() -> None:
    closes_after_s = {"gunicorn-gthread": 2.0, "uvicorn": 5.0, "vllm": 5.0, "waitress": 120.0}
    for kind, limit_s in closes_after_s.items():
        keep_alive = pool(kind).keep_alive
        assert keep_alive is not None
        assert keep_alive.idle_timeout <= 0.8 * limit_s, kind
        assert keep_alive.idle == 64, "the rest of the section is as ever"
    assert pool("gunicorn-sync").keep_alive is None


def test_own_keys_win_and_their_neighbours_stay() -> None:
    made = pool("vllm", retry={"attempts": 1}, timeouts={"read": "5s"}, health_check={"interval": "10s"})
    assert (made.retry.attempts, made.retry.idempotent) == (1, False)
    assert (made.timeouts.read, made.timeouts.response_head, made.timeouts.connect) == (5.0, 300.0, 3.0)
    assert made.health_check is not None
    assert (made.health_check.type, made.health_check.path, made.health_check.interval) == ("http", "/health", 10.0)
    assert pool("vllm", retry={"idempotent": True}).retry.idempotent


def test_own_sections_that_are_no_mapping_win_as_a_whole() -> None:
    made = pool("tgi", health_check="off", retry="off", max_inflight="off")
    assert (made.health_check, made.retry.attempts, made.max_inflight) == (None, 0, None)
    assert dict(in_force("tgi", made))["health_check.path"] == "off"
    check = pool("tgi", health_check="tcp").health_check
    assert check is not None
    assert (check.type, check.interval) == ("tcp", 2.0)
    assert pool("uvicorn", keep_alive="off").keep_alive is None


def test_a_section_wins_over_off() -> None:
    keep_alive = pool("gunicorn-sync", keep_alive={"idle": 3}).keep_alive
    assert keep_alive is not None
    assert (keep_alive.idle, keep_alive.idle_timeout) == (3, 60.0)


def test_a_path_is_a_section_too() -> None:
    check = pool("triton", health_check="/v2/models/m/ready").health_check
    assert check is not None
    assert (check.type, check.path, check.expect.status) == ("http", "/v2/models/m/ready", ((200, 200),))
    check = pool("gunicorn-sync", health_check="/health").health_check
    assert check is not None
    assert (check.type, check.path, check.busy_window) == ("http", "/health", 30.0)


@pytest.mark.parametrize("own", [{"type": "tcp"}, {"send": "PING", "expect": "PONG"}])
def test_a_check_of_another_type_takes_nothing_from_the_kind(own: dict[str, object]) -> None:
    check = pool("tgi", health_check=own).health_check
    assert check is not None
    assert (check.type, check.path, check.interval) == ("tcp", "/", 2.0)


def test_what_is_read_is_not_changed() -> None:
    written = {"servers": ["a:1"], "kind": "tgi", "health_check": {"expect": {"body": "ok"}}, "timeouts": {}}
    first = Pool.model_validate(written)
    assert written["health_check"] == {"expect": {"body": "ok"}}
    assert written["timeouts"] == {}
    assert Pool.model_validate(written) == first
    assert first.health_check is not None
    assert first.health_check.expect.status == ((200, 200),)


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("gunicorn", "did you mean gunicorn-sync, or gunicorn-gthread where it has --threads?"),
        ("gunicorn_sync", "did you mean gunicorn-sync?"),
        ("FastAPI", "did you mean uvicorn?"),
        ("vllm2", "did you mean vllm?"),
        ("off", ""),
        (True, ""),
        ([], ""),
        ({"vllm": 1}, ""),
    ],
    ids=str,
)
def test_what_is_no_kind(given: object, hint: str) -> None:
    with pytest.raises(ValueError, match=r"^expected gunicorn-sync, .* or tgi, got ") as raised:
        parse_kind(given)
    assert str(raised.value).partition("; ")[2] == hint
