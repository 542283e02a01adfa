"""A private CA and what it signs, as files; and both ends of TLS for the raw client and the scripted server."""

from __future__ import annotations

import datetime
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme

from tests.support.client import TIMEOUT_S, Client
from tests.support.wire import AT_ONCE, Stream

_YEAR = datetime.timedelta(days=365)


@dataclass(frozen=True, slots=True)
class CertFiles:
    cert: str
    key: str

    @property
    def tls(self) -> dict[str, Any]:
        """As a listener's `tls` takes it."""
        return {"cert": self.cert, "key": self.key}


class Authority:
    """Files are written so that no reader ever sees half of one."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._ca = trustme.CA()
        self.ca = str(directory / f"{name}.pem")
        self._ca.cert_pem.write_to_path(self.ca)

    def issue(self, file: str, *names: str, expired: bool = False, common_name: str | None = None) -> CertFiles:
        """A certificate for these names, in FILE.pem and FILE.key; an older one of that name is replaced."""
        now = datetime.datetime.now(datetime.UTC)
        begin, end = (now - 2 * _YEAR, now - _YEAR) if expired else (now - _YEAR, now + _YEAR)
        leaf = self._ca.issue_cert(*names, common_name=common_name, not_before=begin, not_after=end)
        files = CertFiles(str(self.directory / f"{file}.pem"), str(self.directory / f"{file}.key"))
        replace(files.cert, b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        replace(files.key, leaf.private_key_pem.bytes())
        return files

    def trusting(self, files: CertFiles | None = None, **settings: Any) -> ssl.SSLContext:
        """A client's context that trusts this CA, and shows a certificate. settings: attributes of the context."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.ca)
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # the end without close_notify must show
        if files is not None:
            context.load_cert_chain(files.cert, files.key)
        for name, value in settings.items():
            setattr(context, name, value)
        return context


def replace(path: str, data: bytes) -> None:
    """Write a file as certificate tools do: a new one under its name."""
    temporary = Path(path + ".new")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def server_wrap(
    files: CertFiles, client_ca: str | None = None, **settings: Any
) -> Callable[[socket.socket], ssl.SSLSocket]:
    """What Origin(wrap=...) takes: the server's side of a handshake. settings: attributes of the context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    for name, value in settings.items():
        setattr(context, name, value)
    return lambda sock: context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)


class TlsStream(Stream):
    """Its `end` is "fin" only after close_notify; "cut" is a FIN without it."""

    def fill(self, most: int = AT_ONCE) -> bool:
        try:
            return super().fill(most)
        except ssl.SSLEOFError:
            self.end = "cut"
            return False


class TlsClient(Client):
    """A raw client that speaks TLS. Raises ssl.SSLError if there is no handshake."""

    def __init__(
        self,
        address: int,
        context: ssl.SSLContext,
        *,
        name: str = "localhost",
        session: ssl.SSLSession | None = None,
        timeout_s: float = TIMEOUT_S,
        receive_buffer: int | None = None,
    ) -> None:
        super().__init__(address, timeout_s=timeout_s, receive_buffer=receive_buffer)
        try:
            self.tls = context.wrap_socket(self.sock, server_hostname=name, session=session, suppress_ragged_eofs=False)
        except BaseException:
            self.sock.close()
            raise
        self.sock = self.tls
        self.stream = TlsStream(self.sock)

    def __enter__(self) -> TlsClient:
        return self
