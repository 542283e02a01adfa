"""Values of `api_keys` and `rate_limits`."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from lbproxy.config.limits_model import ApiKeys, LimitStore, RateLimit
from lbproxy.config.units import Rate


def limit(**keys: Any) -> RateLimit:
    return RateLimit.model_validate({"key": "client_ip", "rate": "10/s", **keys})


@pytest.mark.parametrize(
    ("text", "rate", "at_once"),
    [
        ("100/s", Rate(100, 1.0), 100),
        ("6000/m", Rate(6000, 60.0), 100),
        ("6000/min", Rate(6000, 60.0), 100),
        ("10/hour", Rate(10, 3600.0), 1),
        ("1 / d", Rate(1, 86400.0), 1),
        ("100 in 10s", Rate(100, 10.0), 10),
        ("1000000/s", Rate(1_000_000, 1.0), 1_000_000),
    ],
)
def test_rates(text: str, rate: Rate, at_once: int) -> None:
    found = limit(rate=text)
    assert (found.rate, found.most_at_once) == (rate, at_once)
    assert limit(rate=text, burst=7).most_at_once == 7


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"rate": 100}, "did you mean 100/s"),
        ({"rate": "0/s"}, "expected a rate such as 100/s"),
        ({"rate": "off"}, "remove the limit"),
        ({"rate": "10/w"}, "expected a rate such as 100/s"),
        ({"rate": "1000001/s"}, "1000000/s is the most"),
        ({"key": "json:/model"}, "looks at the head alone"),
        ({"key": "ip"}, "did you mean client_ip"),
        ({"key": "users"}, "expected all, client_ip"),
        ({"burst": 0}, "1"),
        ({"status": 200}, "400"),
        ({"store": "http://x"}, "expected redis://"),
        ({"store": {"url": "redis://"}}, "expected redis://"),
        ({"store": {"url": "redis://h", "timeout": 0}}, "longer than 0"),
    ],
)
def test_what_cannot_be(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        limit(**keys)


def test_a_password_is_not_told() -> None:
    with pytest.raises(ValidationError) as raised:
        limit(store="rediss://user:secret@h:x y")
    assert "secret" not in raised.value.errors()[0]["msg"]


def test_names_and_stores() -> None:
    assert limit().label == "client_ip" and limit(name="n").label == "n"
    assert limit().store is None and limit(store="local").store is None
    assert limit(store="redis://h:1/2").store == LimitStore(url="redis://h:1/2", timeout=0.005)
    assert limit(store="unix:///run/redis.sock?db=1").store is not None
    assert limit(store={"url": "rediss://u:p@h", "timeout": "20ms"}).store == LimitStore(
        url="rediss://u:p@h", timeout=0.02
    )


def test_keys() -> None:
    assert ApiKeys(file="k") == ApiKeys(file="k", header="X-API-Key", query=None, required=True)
    with pytest.raises(ValidationError):
        ApiKeys.model_validate({"file": "k", "header": "a b"})
