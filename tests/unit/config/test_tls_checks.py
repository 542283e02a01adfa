"""Files that a config names, looked at when asked: each complaint at its key. For keys see refused.txt, warned.txt."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbproxy.config.loader import ConfigError, load_file, load_text
from lbproxy.config.tls_checks import absolute
from tests.support.certificates import Authority

LISTENER = """\
listeners:
  - bind: ':1'
    routes: [{match: {host: a.example.com}, pool: p}, {match: {host: x.b.org}, pool: p}, {pool: p}]
    tls:
      cert: first.pem
      key: first.key
      certs:
        - {cert: second.pem, key: second.key}
      client_ca: ca.pem
      client_verify: optional
pools:
  p:
    servers: ['a:1']
    tls: {ca: ca.pem, cert: first.pem, key: first.key}
    health_check: {tls: {ca: ca.pem}}
"""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path)
    made.issue("first", "a.example.com")
    made.issue("second", "*.b.org")
    (tmp_path / "lb.yaml").write_text(LISTENER)
    return made


def said(directory: Path) -> list[str]:
    """Every problem or warning, without the directory."""
    try:
        problems = load_file(directory / "lb.yaml", {}, checks_files=True).warnings
    except ConfigError as error:
        problems = error.problems
    return [str(problem).replace(f"{directory}/", "") for problem in problems]


def test_good_files_are_no_news(authority: Authority) -> None:
    assert said(authority.directory) == []


def test_files_are_looked_at_only_if_asked() -> None:
    assert load_text(LISTENER, "lb.yaml", {}).warnings == ()


def test_relative_paths_start_at_the_config_file() -> None:
    assert absolute("a/b.pem", "/etc/lbproxy") == "/etc/lbproxy/a/b.pem"
    assert absolute("/b.pem", "/etc/lbproxy") == "/b.pem"


def test_everything_that_is_wrong_is_said_at_its_place(authority: Authority) -> None:
    directory = authority.directory
    (directory / "first.key").unlink()
    (directory / "second.key").write_bytes(Path(authority.issue("other", "x").key).read_bytes())
    (directory / "ca.pem").write_text("hello\n")
    assert said(directory) == [
        "lb.yaml:6:12: listeners[0].tls.key: there is no file first.key",
        "lb.yaml:8:35: listeners[0].tls.certs[0].key: second.key is not the key of the certificate in second.pem; "
        "the chain's first certificate must be the server's own",
        "lb.yaml:9:18: listeners[0].tls.client_ca: ca.pem is not PEM (no -----BEGIN line)",
        "lb.yaml:14:15: pools.p.tls.ca: ca.pem is not PEM (no -----BEGIN line)",
        "lb.yaml:15:30: pools.p.health_check.tls.ca: ca.pem is not PEM (no -----BEGIN line)",
    ]


def test_an_expired_certificate_is_a_warning(authority: Authority) -> None:
    authority.issue("second", "*.b.org", expired=True)
    (warning,) = said(authority.directory)
    assert warning.startswith("lb.yaml:8:18: listeners[0].tls.certs[0].cert: second.pem: the certificate expired on ")
    assert warning.endswith("; renew it")


def test_a_route_for_a_host_that_no_certificate_is_for(authority: Authority) -> None:
    authority.issue("second", "b.org", "*.x.b.org")
    assert said(authority.directory) == [
        "lb.yaml:3:70: listeners[0].routes[1].match.host: no certificate of this listener is for x.b.org"
    ]
