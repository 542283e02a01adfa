"""What stands in the certificate and key files that the config names, and the contexts made from them.

One place reads these files: `lbproxy check`, the start and the reload on change all complain in the same words. Names
and dates are read from the DER itself, because the standard library decodes only certificates that it has verified.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MODERN_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"  # TLS 1.2; TLS 1.3 has only good ones
VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
SOON_S: Final = 14 * 86400.0

_SEQUENCE, _UTC_TIME, _GENERAL_TIME = 0x30, 0x17, 0x18
_DNS_NAME, _IP_ADDRESS = 0x82, 0x87  # of GeneralName (RFC 5280 section 4.2.1.6)
_EXTENSIONS = 0xA3
_SUBJECT_ALT_NAME, _COMMON_NAME = b"\x55\x1d\x11", b"\x55\x04\x03"


class FileProblem(Exception):
    """A file that can't be used. `key` is the last part of the config key that names it, the text a sentence."""

    def __init__(self, key: str, message: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.key = key
        self.message = message
        self.suggestion = suggestion


@dataclass(frozen=True, slots=True)
class Certificate:
    """The first certificate of a file. names: lower-case DNS names and addresses it is for. Dates: Unix time."""

    path: str
    names: tuple[str, ...]
    not_before: float
    not_after: float

    def complaint(self, wall: float) -> str:
        """What a person should know about its dates, or ""."""
        if wall < self.not_before:
            return f"the certificate is not valid before {day(self.not_before)}"
        if wall >= self.not_after:
            return f"the certificate expired on {day(self.not_after)}"
        if wall >= self.not_after - SOON_S:
            return f"the certificate expires on {day(self.not_after)}"
        return ""


def day(wall: float) -> str:
    return datetime.datetime.fromtimestamp(wall, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


# --- files ----------------------------------------------------------------------------------------------------------


def read_pem(key: str, path: str) -> str:
    """The text of a PEM file. Raises FileProblem."""
    try:
        text = Path(path).read_text("latin-1")
    except FileNotFoundError:
        raise FileProblem(key, f"there is no file {path}") from None
    except IsADirectoryError:
        raise FileProblem(key, f"{path} is a directory, not a file") from None
    except PermissionError:
        raise FileProblem(key, f"{path} cannot be read: no permission", "lbproxy's user needs to read it") from None
    except (OSError, ValueError) as error:
        raise FileProblem(key, f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if "-----BEGIN " not in text:
        what = "is empty" if not text.strip() else "is not PEM (no -----BEGIN line)"
        convert = "convert it: openssl x509 -inform DER" if text.startswith("0\x82") and key != "key" else ""
        raise FileProblem(key, f"{path} {what}", convert)
    return text


def read_certificate(key: str, path: str) -> Certificate:
    """The first certificate of a PEM file. Raises FileProblem."""
    text = read_pem(key, path)
    begin = text.find(ssl.PEM_HEADER)
    end = text.find(ssl.PEM_FOOTER, begin)
    if begin < 0 or end < 0:
        found = "a private key" if "PRIVATE KEY-----" in text else "no certificate"
        raise FileProblem(
            key, f"{path} holds {found}, not a certificate" if "key" in found else f"{path} holds {found}"
        )
    try:
        der = ssl.PEM_cert_to_DER_cert(text[begin : end + len(ssl.PEM_FOOTER)])
        names, not_before, not_after = decode(der)
    except (ValueError, IndexError) as error:
        raise FileProblem(key, f"{path} holds a damaged certificate: {error}") from None
    return Certificate(path, names, not_before, not_after)


def load_pair(context: ssl.SSLContext, cert: str, key: str) -> Certificate:
    """Put a certificate chain and its key into a context. Raises FileProblem for whichever file is wrong."""
    found = read_certificate("cert", cert)
    text = read_pem("key", key)
    if "PRIVATE KEY-----" not in text:
        raise FileProblem("key", f"{key} holds no private key")
    if "BEGIN ENCRYPTED" in text or ",ENCRYPTED" in text:  # PKCS #8, and the older form
        raise FileProblem("key", f"{key} is encrypted", "remove the passphrase: openssl pkey -in KEY -out NEW")
    try:
        context.load_cert_chain(cert, key, "")  # "": never ask a terminal for a passphrase
    except ssl.SSLError as error:
        if error.reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"):
            message = f"{key} is not the key of the certificate in {cert}"
            raise FileProblem("key", message, "the chain's first certificate must be the server's own") from None
        if error.reason in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
            raise FileProblem("cert", f"{cert}: the key or signature is too weak ({_words(error)})") from None
        raise FileProblem("key", f"{cert} and {key} cannot be loaded: {_words(error)}") from None
    except OSError as error:
        raise FileProblem("key", f"{key} cannot be read: {error.strerror or error}") from None
    return found


def load_ca(context: ssl.SSLContext, key: str, path: str) -> None:
    """Trust the CA certificates of a file. Raises FileProblem."""
    read_certificate(key, path)
    try:
        context.load_verify_locations(cafile=path)
    except (ssl.SSLError, OSError) as error:
        raise FileProblem(key, f"{path} holds no usable CA certificate: {_words(error)}") from None


def _words(error: OSError) -> str:
    reason = getattr(error, "reason", None)
    if reason:
        return str(reason).replace("_", " ").lower()
    return "OpenSSL can't read it" if isinstance(error, ssl.SSLError) else error.strerror or str(error)


# --- contexts -------------------------------------------------------------------------------------------------------


def server_context(
    cert: str, key: str, *, min_version: str, alpn: Sequence[str], client_ca: str | None, client_verify: str
) -> tuple[ssl.SSLContext, Certificate]:
    """A context for one certificate of a listener. Raises FileProblem."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = VERSIONS[min_version]
    context.set_ciphers(MODERN_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.num_tickets = 1  # of TLS 1.3, to resume by; the second one that OpenSSL sends costs 10 us a connection
    if alpn:
        context.set_alpn_protocols(list(alpn))
    found = load_pair(context, cert, key)
    if client_verify != "off":
        context.verify_mode = ssl.CERT_REQUIRED if client_verify == "required" else ssl.CERT_OPTIONAL
        if client_ca is not None:
            load_ca(context, "client_ca", client_ca)
    return context, found


def client_context(
    *, verify: bool, ca: str | None, cert: str | None, key: str | None, alpn: Sequence[str] = ()
) -> ssl.SSLContext:
    """A context towards servers. alpn: what they are offered, if anything. Raises FileProblem."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if ca is not None:
        load_ca(context, "ca", ca)
    elif verify:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if cert is not None and key is not None:
        load_pair(context, cert, key)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


# --- DER (RFC 5280 section 4.1, X.690) --------------------------------------------------------------------------------


def _read(data: bytes, at: int) -> tuple[int, int, int]:
    """Tag, first byte and end of the value of the element at `at`."""
    tag, length, at = data[at], data[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, at = int.from_bytes(data[at : at + size], "big"), at + size
    if at + length > len(data):
        raise ValueError("it is cut off")
    return tag, at, at + length


def _items(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    while at < end:
        item = _read(data, at)
        yield item
        at = item[2]


def decode(der: bytes) -> tuple[tuple[str, ...], float, float]:
    """Names, notBefore and notAfter of a certificate. Raises ValueError or IndexError for what is none."""
    _, at, _ = _read(der, 0)
    tag, at, end = _read(der, at)
    if tag != _SEQUENCE:
        raise ValueError("it is not X.509")
    parts = list(_items(der, at, end))
    if parts[0][0] == 0xA0:  # the version, absent in version 1
        del parts[0]
    validity, subject = parts[3], parts[4]
    dates = [_time(der, item) for item in _items(der, validity[1], validity[2])]
    names = [name for part in parts if part[0] == _EXTENSIONS for name in _alt_names(der, part)]
    # RFC 6125 section 6.4.4: the common name counts only where there is no alternative name.
    return tuple(names or _common_names(der, subject)), dates[0], dates[1]


def _time(der: bytes, item: tuple[int, int, int]) -> float:
    text = der[item[1] : item[2]].decode("ascii")
    if item[0] == _UTC_TIME:  # RFC 5280 section 4.1.2.5.1: 50 to 99 are of the last century
        text = ("19" if text[:2] >= "50" else "20") + text
    elif item[0] != _GENERAL_TIME:
        raise ValueError("it has no dates")
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC).timestamp()


def _alt_names(der: bytes, extensions: tuple[int, int, int]) -> Iterator[str]:
    _, at, end = _read(der, extensions[1])
    for _, start, stop in _items(der, at, end):
        fields = list(_items(der, start, stop))
        if der[fields[0][1] : fields[0][2]] != _SUBJECT_ALT_NAME:
            continue
        _, first, last = _read(der, fields[-1][1])
        for tag, begin, finish in _items(der, first, last):
            value = der[begin:finish]
            if tag == _DNS_NAME:
                yield value.decode("ascii").lower()
            elif tag == _IP_ADDRESS:
                yield str(ipaddress.ip_address(value))


def _common_names(der: bytes, subject: tuple[int, int, int]) -> Iterator[str]:
    for _, start, stop in _items(der, subject[1], subject[2]):
        for _, first, last in _items(der, start, stop):
            fields = list(_items(der, first, last))
            if der[fields[0][1] : fields[0][2]] == _COMMON_NAME:
                yield der[fields[1][1] : fields[1][2]].decode("utf-8", "replace").lower()
