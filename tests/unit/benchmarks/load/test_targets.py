"""Which programs can do what."""

from pathlib import Path

import pytest

from benchmarks.load.cases import CASES
from benchmarks.load.targets import BARE, FULL, parse_nginx_build, program_of, takes

BUILD = "configure arguments: --modules-path=/modules --without-http_scgi_module"


@pytest.mark.parametrize(
    ("options", "module_exists", "has_stream", "module"),
    [
        ("", True, False, None),
        (" --with-stream", False, True, None),
        (" --with-stream=dynamic", True, True, Path("/modules/ngx_stream_module.so")),
        (" --with-stream=dynamic", False, False, None),
    ],
    ids=["not built", "built in", "module installed", "module not installed"],
)
def test_the_stream_module(options: str, module_exists: bool, has_stream: bool, module: Path | None) -> None:
    nginx = parse_nginx_build("nginx", BUILD + options, lambda _path: module_exists)
    assert (nginx.has_stream, nginx.stream_module) == (has_stream, module)


def test_modules_left_out_of_the_build_get_no_directory() -> None:
    assert parse_nginx_build("nginx", BUILD, lambda _path: False).temp_modules == ("proxy", "fastcgi", "uwsgi")


def test_tuned_peers_run_in_the_cases_that_they_are_tuned_for() -> None:
    bulk = {name for name, case in CASES.items() if takes("haproxy_tuned", case)}
    assert bulk == {"http_64k", "http_1mb", "tls_1mb", "tcp_1mb"}
    assert all(takes("haproxy", case) for case in CASES.values())


def test_what_protection_costs_is_measured_where_a_request_costs_least() -> None:
    for name in (FULL, BARE):
        assert [case.name for case in CASES.values() if takes(name, case)] == ["http_small"]


def test_two_of_a_program_run_where_it_is_about_requests_alone() -> None:
    for name in ("lbproxy_two", "haproxy_two"):
        assert [case.name for case in CASES.values() if takes(name, case)] == ["http_real", "http_small", "tls_real"]


def test_which_program_a_target_is() -> None:
    assert [program_of(name) for name in ("nginx", "haproxy_tuned", FULL)] == ["nginx", "haproxy", "lbproxy"]
