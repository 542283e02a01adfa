"""A DNS server on a loopback port, of UDP and TCP, whose answers a test changes while it runs."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Sequence

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

SILENCE = "silence"


def _with_one_port() -> tuple[socket.socket, socket.socket]:
    """For TCP and for UDP. A port that the kernel gives for TCP may be somebody's for UDP: then it gives another."""
    for _ in range(100):
        tcp = socket.create_server(("127.0.0.1", 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind(tcp.getsockname())
        except OSError:
            tcp.close()
            udp.close()
        else:
            return tcp, udp
    raise AssertionError("a hundred ports for TCP, and each is taken for UDP")


class DnsServer:
    """Answers with `records` by (name, type); a name that has none does not exist. `mood`: an rcode instead, SILENCE.

    Answers with more than 512 bytes are cut over UDP, as a real server does without EDNS.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: dict[tuple[str, str], list[str]] = {}
        self._moods: dict[str, str] = {}
        self.questions: list[tuple[str, str]] = []
        self.n_tcp = 0
        self._tcp, self._udp = _with_one_port()
        self.port: int = self._tcp.getsockname()[1]
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._serve_udp, self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> DnsServer:
        return self

    def __exit__(self, *exc: object) -> None:
        for sock in (self._udp, self._tcp):
            sock.shutdown(socket.SHUT_RDWR) if sock is self._tcp else None
            sock.close()

    def set(self, name: str, kind: str, *values: str) -> None:
        """The records of a name, as a zone file has them; none: the name does not exist."""
        with self._lock:
            self._records[name, kind] = list(values)

    def set_srv(self, name: str, *records: tuple[int, int, int, str]) -> None:
        """priority, weight, port, target."""
        self.set(name, "SRV", *(f"{priority} {weight} {port} {target}." for priority, weight, port, target in records))

    def set_mood(self, name: str, mood: str = "") -> None:
        """What a name is answered with instead: SERVFAIL, REFUSED, SILENCE; "": its records again."""
        with self._lock:
            self._moods[name] = mood

    def asked(self, name: str, kind: str = "SRV") -> int:
        """How often."""
        with self._lock:
            return self.questions.count((name, kind))

    def _answer(self, data: bytes, *, limit: int) -> bytes | None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        with self._lock:
            self.questions.append((name, kind))
            mood, values = self._moods.get(name, ""), self._records.get((name, kind), [])
            is_known = any(known == name and records for (known, _), records in self._records.items())
        if mood == SILENCE:
            return None
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        if mood:
            answer.set_rcode(dns.rcode.from_text(mood))
        elif values:
            answer.answer.append(dns.rrset.from_text(question.name, 0, "IN", kind, *values))
        elif not is_known:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        wire = answer.to_wire(max_size=65535)
        if len(wire) > limit:
            answer.answer.clear()
            answer.flags |= dns.flags.TC
            wire = answer.to_wire()
        return wire

    def _serve_udp(self) -> None:
        while True:
            try:
                data, peer = self._udp.recvfrom(65535)
                if (wire := self._answer(data, limit=512)) is not None:
                    self._udp.sendto(wire, peer)
            except OSError:
                return  # the test is over

    def _serve_tcp(self) -> None:
        while True:
            try:
                sock, _ = self._tcp.accept()
            except OSError:
                return  # the test is over
            with sock:
                self.n_tcp += 1
                (length,) = struct.unpack("!H", sock.recv(2, socket.MSG_WAITALL))
                wire = self._answer(sock.recv(length, socket.MSG_WAITALL), limit=65535)
                if wire is not None:
                    sock.sendall(struct.pack("!H", len(wire)) + wire)


def addresses(server: DnsServer, **hosts: Sequence[str]) -> None:
    """The IPv4 addresses of hosts; `a_org` is `a.org`."""
    for name, values in hosts.items():
        server.set(name.replace("_", "."), "A", *values)
