"""Key updates of TLS 1.3 (RFC 8446 section 4.6.3), which Python's ssl can't send: records made with the traffic secret.

The context of the peer that is to send them writes its secrets to a file (`SSLContext.keylog_filename`).
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

HANDSHAKE = 22
DATA = 23


class KeyUpdates:
    """The sending side of one connection whose handshake is over, from here on. n_sent: records of data before."""

    def __init__(self, keylog: Path, cipher: str, *, sender: str = "CLIENT", n_sent: int = 0) -> None:
        lines = [line.split() for line in keylog.read_text().splitlines()]
        (secret,) = [parts[2] for parts in lines if parts[:1] == [f"{sender}_TRAFFIC_SECRET_0"]]
        self._secret = bytes.fromhex(secret)
        self._hash: hashes.HashAlgorithm = hashes.SHA384() if cipher.endswith("SHA384") else hashes.SHA256()
        self._is_chacha = "CHACHA20" in cipher
        self._key_size = 16 if "AES_128" in cipher else 32
        self._use(self._secret)
        self._number = n_sent

    def _label(self, label: bytes, size: int) -> bytes:
        """HKDF-Expand-Label (section 7.1) of the current secret, without a context."""
        label = b"tls13 " + label
        info = size.to_bytes(2, "big") + bytes((len(label),)) + label + b"\0"
        return HKDFExpand(self._hash, size, info).derive(self._secret)

    def _use(self, secret: bytes) -> None:
        self._secret = secret
        key, self._iv = self._label(b"key", self._key_size), self._label(b"iv", 12)
        self._cipher = ChaCha20Poly1305(key) if self._is_chacha else AESGCM(key)
        self._number = 0

    def record(self, content: bytes, kind: int = DATA) -> bytes:
        """One protected record (section 5.2)."""
        header = bytes((DATA, 3, 3)) + (len(content) + 17).to_bytes(2, "big")
        nonce = int.from_bytes(self._iv, "big") ^ self._number
        self._number += 1
        return header + self._cipher.encrypt(nonce.to_bytes(12, "big"), content + bytes((kind,)), header)

    def update(self, *, is_request: bool = True) -> bytes:
        """A key update; is_request: the peer has to answer with its own."""
        data = self.record(bytes((24, 0, 0, 1, is_request)), HANDSHAKE)
        self._use(self._label(b"traffic upd", self._hash.digest_size))
        return data
