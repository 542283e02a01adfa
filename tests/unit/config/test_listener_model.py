"""Models of a listener, read one by one: short forms, bounds and the name that follows from the bind."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from lbproxy.address import Address
from lbproxy.config.http_rules import Route
from lbproxy.config.listener_model import CertificateFiles, Listener, ListenerLimits, ListenerTimeouts, ListenerTls


def listener(**written: object) -> Listener:
    return Listener.model_validate({"bind": ":80", **written})


@pytest.mark.parametrize(
    ("bind", "name"),
    [
        (":80", "0.0.0.0:80"),
        ([":80", "[::]:80"], "0.0.0.0:80"),
        (["[::1]:80", ":81"], "[::1]:80"),
        ("unix:/run/a.sock", "unix:/run/a.sock"),
        ("unix:@a", "unix:@a"),
        ("gpu.internal:80", "gpu.internal:80"),
    ],
)
def test_the_first_bind_is_the_name(bind: object, name: str) -> None:
    assert listener(bind=bind).name == name
    assert listener(bind=bind, name="").name == name
    assert listener(bind=bind, name="web").name == "web"


def test_no_bind_gives_no_name() -> None:
    made = listener(bind=[])
    assert (made.bind, made.name) == ((), "")


def test_the_name_does_not_count_as_written() -> None:
    assert "name" not in listener().model_fields_set


@pytest.mark.parametrize("name", ["a b", "a\n", "x" * 129, True])
def test_names_are_short_and_printable(name: object) -> None:
    with pytest.raises(ValidationError) as raised:
        listener(name=name)
    assert [error["loc"] for error in raised.value.errors()] == [("name",)]


def test_how_paths_and_methods_are_read() -> None:
    plain = listener()
    assert (plain.path_rules, plain.encoded_slashes, plain.methods) == ("normalise", "refuse", ())
    assert listener(methods="PURGE").methods == ("PURGE",)
    assert listener(path_rules="raw", encoded_slashes="pass").path_rules == "raw"
    assert ListenerLimits().request_line_bytes == 8192
    for written in (
        {"path_rules": "normalize"},
        {"encoded_slashes": "decode"},
        {"methods": ["get"]},
        {"methods": ["TRACE"]},
        {"methods": ["CONNECT"]},
        {"methods": ["A B"]},
    ):
        with pytest.raises(ValidationError):
            listener(**written)


def test_one_bind_is_a_list_of_one() -> None:
    assert listener(bind="127.0.0.1:80").bind == listener(bind=["127.0.0.1:80"]).bind == (Address("127.0.0.1", 80),)
    with pytest.raises(ValidationError, match="missing"):
        Listener.model_validate({"pool": "p"})
    with pytest.raises(ValidationError) as raised:
        listener(bind=[":80", 81])
    assert [error["loc"] for error in raised.value.errors()] == [("bind", 1)]


def test_a_pool_is_one_route_for_everything() -> None:
    assert listener(pool="p").effective_routes() == (Route(pool="p"),)
    (route,) = listener(pool="p").effective_routes()
    assert route.match is None


def test_routes_keep_their_order() -> None:
    made = listener(
        routes=[{"match": {"path": "/b"}, "pool": "b"}, {"match": {"path": "/a"}, "pool": "a"}, {"pool": "c"}]
    )
    assert [route.pool for route in made.effective_routes()] == ["b", "a", "c"]
    assert made.effective_routes() is made.routes
    assert listener().effective_routes() == ()


@pytest.mark.parametrize("key", ListenerTimeouts.model_fields)
def test_timeouts_are_seconds_above_zero(key: str) -> None:
    assert getattr(ListenerTimeouts.model_validate({key: "1m"}), key) == 60.0
    assert getattr(ListenerTimeouts.model_validate({key: 0.5}), key) == 0.5
    for written in ("0s", "off", -1, "10"):
        with pytest.raises(ValidationError):
            ListenerTimeouts.model_validate({key: written})


@pytest.mark.parametrize("key", ["head_bytes", "body_bytes", "trailer_bytes", "chunk_overhead", "min_rate"])
def test_sizes_are_bytes_above_zero(key: str) -> None:
    assert getattr(ListenerLimits.model_validate({key: "3KiB"}), key) == 3072
    for written in (0, -1, "3K", True):
        with pytest.raises(ValidationError):
            ListenerLimits.model_validate({key: written})


@pytest.mark.parametrize(
    ("key", "lowest", "highest"),
    [("headers", 1, 10_000), ("connections_per_ip", 1, 1_000_000), ("handshakes", 1, 1_000_000)],
)
def test_counts_have_a_range(key: str, lowest: int, highest: int) -> None:
    for count in (lowest, highest):
        assert getattr(ListenerLimits.model_validate({key: count}), key) == count
    for count in (lowest - 1, highest + 1):
        with pytest.raises(ValidationError, match=f"from {lowest} to {highest}"):
            ListenerLimits.model_validate({key: count})


def test_which_limits_can_be_off() -> None:
    able = set()
    for key in ListenerLimits.model_fields:
        try:
            made = ListenerLimits.model_validate({key: "off"})
        except ValidationError:
            continue
        assert getattr(made, key) is None
        able.add(key)
    assert able == {"body_bytes", "connections_per_ip", "min_rate"}


@pytest.mark.parametrize(("written", "bits"), [("0660", 0o660), ("600", 0o600), ("0777", 0o777)])
def test_permission_bits_are_octal(written: str, bits: int) -> None:
    assert listener(mode_bits=written).mode_bits == bits


@pytest.mark.parametrize(
    "written",
    [{"mode_bits": 660}, {"mode_bits": "0888"}, {"mode": "udp"}, {"half_close": True}, {"underscore_headers": "keep"}],
    ids=str,
)
def test_other_values_are_refused(written: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as raised:
        listener(**written)
    assert [error["loc"] for error in raised.value.errors()] == [tuple(written)]


def test_tls_is_off_or_a_mapping() -> None:
    assert listener(tls="off").tls is None
    made = listener(tls={"cert": "c.pem", "key": "k.pem", "certs": [{"cert": "d.pem", "key": "l.pem"}]}).tls
    assert made is not None
    assert (made.cert, made.key, made.client_verify, made.min_version) == ("c.pem", "k.pem", "off", "1.2")
    assert made.certs == (CertificateFiles(cert="d.pem", key="l.pem"),)
    assert ListenerTls().alpn == ()
    with pytest.raises(ValidationError) as raised:
        ListenerTls.model_validate({"certs": [{"cert": "d.pem"}]})
    assert [error["loc"] for error in raised.value.errors()] == [("certs", 0, "key")]


def test_a_listener_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        listener().name = "other"
