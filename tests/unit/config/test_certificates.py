"""Certificate files: what is read from them, and a sentence for everything that can be wrong with one."""

from __future__ import annotations

import re
import ssl
from pathlib import Path

import pytest

from lbproxy.config.certificates import (
    Certificate,
    FileProblem,
    client_context,
    day,
    decode,
    read_certificate,
    server_context,
)
from tests.support.certificates import Authority, CertFiles


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def serve(files: CertFiles, **options: str | None) -> tuple[ssl.SSLContext, Certificate]:
    settings = {"client_ca": None, "client_verify": "off", **options}
    return server_context(files.cert, files.key, min_version="1.2", alpn=["http/1.1"], **settings)  # type: ignore[arg-type]


def test_names_and_dates(authority: Authority) -> None:
    files = authority.issue("names", "A.example.com", "*.example.org", "10.0.0.1", "::1", common_name="cn.example")
    found = read_certificate("cert", files.cert)
    assert found.names == ("a.example.com", "*.example.org", "10.0.0.1", "::1")
    decoded = ssl._ssl._test_decode_cert(files.cert)  # type: ignore[attr-defined]
    assert found.not_before == ssl.cert_time_to_seconds(decoded["notBefore"])
    assert found.not_after == ssl.cert_time_to_seconds(decoded["notAfter"])
    assert found.path == files.cert


def test_complaints_about_dates() -> None:
    made = Certificate("a.pem", (), 1_000_000.0, 9_000_000.0)
    assert made.complaint(5_000_000.0) == ""
    assert made.complaint(999_999.0) == f"the certificate is not valid before {day(1e6)}"
    assert made.complaint(9_000_000.0) == "the certificate expired on 1970-04-15 04:00 UTC"
    assert made.complaint(9_000_000.0 - 13 * 86400) == "the certificate expires on 1970-04-15 04:00 UTC"
    assert made.complaint(9_000_000.0 - 15 * 86400) == ""


@pytest.mark.parametrize("cut", [0, 1, 5, 60, 200])
def test_a_damaged_certificate_is_an_error_of_its_own(authority: Authority, cut: int) -> None:
    der = ssl.PEM_cert_to_DER_cert(Path(authority.issue("cut", "localhost").cert).read_text())
    with pytest.raises((ValueError, IndexError)):
        decode(der[:cut])


def damaged(authority: Authority, directory: Path, what: str) -> CertFiles:
    good, other = authority.issue("good", "localhost"), authority.issue("other", "localhost")
    cert, key = directory / "a.pem", directory / "a.key"
    cert.write_bytes(Path(good.cert).read_bytes())
    key.write_bytes(Path(good.key).read_bytes())
    if what == "no certificate":
        cert.unlink()
    elif what == "no key":
        key.unlink()
    elif what == "directory":
        cert.unlink()
        cert.mkdir()
    elif what == "empty":
        cert.write_text("")
    elif what == "DER":
        cert.write_bytes(ssl.PEM_cert_to_DER_cert(Path(good.cert).read_text()))
    elif what == "garbage":
        key.write_text("hello\n")
    elif what == "key as certificate":
        cert.write_bytes(key.read_bytes())
    elif what == "certificate as key":
        key.write_bytes(cert.read_bytes())
    elif what == "mismatch":
        key.write_bytes(Path(other.key).read_bytes())
    elif what == "damaged":
        lines = cert.read_text().splitlines()
        cert.write_text("\n".join([*lines[:2], "AAAA", *lines[5:]]))
    elif what == "damaged key":
        key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    elif what == "encrypted":
        key.write_text(key.read_text().replace("BEGIN ", "BEGIN ENCRYPTED ").replace("END ", "END ENCRYPTED "))
    return CertFiles(str(cert), str(key))


SENTENCES = {
    "no certificate": ("cert", "there is no file {cert}"),
    "no key": ("key", "there is no file {key}"),
    "directory": ("cert", "{cert} is a directory, not a file"),
    "empty": ("cert", "{cert} is empty"),
    "DER": ("cert", "{cert} is not PEM (no -----BEGIN line)"),
    "garbage": ("key", "{key} is not PEM (no -----BEGIN line)"),
    "key as certificate": ("cert", "{cert} holds a private key, not a certificate"),
    "certificate as key": ("key", "{key} holds no private key"),
    "mismatch": ("key", "{key} is not the key of the certificate in {cert}"),
    "damaged": ("cert", "{cert} holds a damaged certificate"),
    "damaged key": ("key", "{cert} and {key} cannot be loaded"),
    "encrypted": ("key", "{key} is encrypted"),
}


@pytest.mark.parametrize("what", SENTENCES)
def test_what_is_wrong_is_said(authority: Authority, tmp_path: Path, what: str) -> None:
    files = damaged(authority, tmp_path, what)
    with pytest.raises(FileProblem) as raised:
        serve(files)
    key, sentence = SENTENCES[what]
    assert raised.value.key == key
    assert str(raised.value).startswith(sentence.format(cert=files.cert, key=files.key))
    assert (what == "DER") == ("openssl x509" in raised.value.suggestion)


def test_no_permission(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may run as root, who can read everything: so the refusal is made."""
    files = authority.issue("good", "localhost")

    def refuse(self: Path, *_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(FileProblem, match="cannot be read: no permission") as raised:
        serve(files)
    assert raised.value.suggestion == "lbproxy's user needs to read it"


def test_a_listener_s_context(authority: Authority) -> None:
    files = authority.issue("good", "localhost")
    context, found = serve(files)
    assert found.names == ("localhost",)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_NONE
    old = {cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] != "TLSv1.3"}
    assert old
    assert [name for name in old if not re.match("ECDHE-.*(GCM|CHACHA20)", name)] == []
    for verify, mode in (("optional", ssl.CERT_OPTIONAL), ("required", ssl.CERT_REQUIRED)):
        context, _ = serve(files, client_ca=authority.ca, client_verify=verify)
        assert context.verify_mode is mode


def test_a_context_for_servers_verifies_unless_told_not_to(authority: Authority) -> None:
    context = client_context(verify=True, ca=authority.ca, cert=None, key=None)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(context.get_ca_certs()) == 1  # and not the system's
    context = client_context(verify=False, ca=None, cert=None, key=None)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)


def test_a_ca_file_that_is_none(authority: Authority) -> None:
    with pytest.raises(FileProblem, match="holds a private key") as raised:
        client_context(verify=True, ca=authority.issue("good", "localhost").key, cert=None, key=None)
    assert raised.value.key == "ca"
