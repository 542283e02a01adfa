"""What the compiler of the hot modules (mypyc) is told in their sources.

Code that is not compiled (a user's plug-in, lbproxy's own other modules) can make instances of a subclass of a
compiled class only if that class says `@mypyc_attr(allow_interpreted_subclasses=True)`. Otherwise there is a TypeError,
and only where lbproxy is compiled. So classes that others may derive from say it. A Protocol says
`@mypyc_attr(native_class=False)`.

`free_list_len=1` keeps the memory of the last instance for the next one, and `acyclic=True` says that the garbage
collector need not know the instances: nothing that they refer to leads back to them. Both are for what is made anew for
each request.

A compiled class has one base. What several of them are besides is a `@trait`, of which only compiled classes derive.

A variable that is an `i64` is a number of the machine where it is compiled, for loops over octets; else an `int`.
Numbers of the machine have 64 bits, and what does not fit wraps round, which an `int` does not.

The functions at the end are words of the compiler: where it is asked for one of them it takes the C of the same name in
compiling.h, a few machine instructions where Python would make objects. What they do is written here in Python, for
code that is not compiled.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import re
import select
import struct
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mypy_extensions import i64 as i64
    from mypy_extensions import mypyc_attr as mypyc_attr
    from mypy_extensions import trait as trait
else:  # the compiler reads the decorator and nothing needs it when lbproxy runs: no package to install for it
    i64 = int

    def trait(cls):
        return cls

    def mypyc_attr(**_settings):
        return lambda cls: cls


_WORD: Final = 8
_PLACES: Final = 512
_NAME: Final = 8 * _WORD
_MOST_PASSED: Final = 4095
# Of sys/socket.h: what decides imports this module, and has nothing to do with `socket`.
_SHUT_WR: Final = 1
_LOOK: Final = 0x2 | 0x40  # MSG_PEEK, MSG_DONTWAIT
_MORE: Final = 0x8000 | 0x4000  # MSG_MORE, MSG_NOSIGNAL
_DIALLED: Final = 1 | os.O_NONBLOCK | os.O_CLOEXEC  # SOCK_STREAM; the flags are those of open(2)
_SOL_SOCKET: Final = 1
_SO_LINGER: Final = 13
_TCP: Final = 6
_NODELAY: Final = 1
_NAME_BYTES_6: Final = 28
_NAME_BYTES: Final = {2: 16}  # of sockaddr_in, by AF_INET
_value = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").match
_visible = re.compile(rb"[\x21-\x7e]*").match
_clean = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]*").fullmatch


def word_at(data: bytes, at: i64) -> i64:
    """The eight octets from `at` on, which is not negative; the first is the lowest. -1 if there are fewer."""
    octets = data[at : at + _WORD]
    return int.from_bytes(octets, "little", signed=True) if len(octets) == _WORD else -1


def value_end(data: bytes, at: i64) -> i64:
    """The first octet from `at` on that may not be in a value (RFC 9110 section 5.5); the size of `data` if there is
    none."""
    return max(at, _end(_value(data, at)))


def visible_end(data: bytes, at: i64) -> i64:
    """The first octet from `at` on that is not visible ASCII, as a target is; the size of `data` if there is none."""
    return max(at, _end(_visible(data, at)))


def _end(found: re.Match[bytes] | None) -> int:
    return found.end() if found is not None else 0


def line_end(data: bytes, colon: i64) -> i64:
    """Where the value of a field ends that has its colon there: twice the place of its CR LF, and one more if the line
    is plain, which is a value of at least one octet behind one space and nothing else that is white around it.

    -1: `data` ends before. -2: before CR LF is an octet that no field may have (RFC 9110 section 5.5).
    """
    at = value_end(data, colon + 1)
    if not b"\r\n".startswith(data[at : at + 2]):
        return -2
    if at + 2 > len(data):
        return -1
    return 2 * at + (at > colon + 2 and data[colon + 1] == 32 and data[colon + 2] > 32 and data[at - 1] > 32)


def spelling_at(data: bytes, at: i64, names: bytes) -> i64:
    """Which of `names` stands there with its colon, spelled like this, beginning with 1; 0 says nothing.

    names: what `Names` of protocol/field_lines.py makes of them.
    """
    word = word_at(data, at)
    n = (len(names) - 2 * _PLACES) // _NAME
    place = 2 * ((word ^ word >> 9 ^ word >> 18) & (_PLACES - 1))
    number = int.from_bytes(names[place : place + 2], "little") if at >= 0 else 0
    while 0 < number <= n:
        begin, mask, second, third, last, size, _, following = _names_of(names)[number - 1]
        if word & mask == begin and (
            size < _WORD
            or (
                word_at(data, at + size + 1 - _WORD) == last
                and (size < 2 * _WORD or word_at(data, at + _WORD) == second)
                and (size < 3 * _WORD or word_at(data, at + 2 * _WORD) == third)
            )
        ):
            return number
        number = following if following > number else 0
    return 0


def passed(data: bytes, at: i64, names: bytes) -> i64:
    """Pass over the lines from there on that are plain, as in `line_end`, and have one of these names, of kind 0, 4095
    of them at most. Three numbers in one: the place behind them; in 12 bits how many they are; and in 12 bits more what
    `spelling_at` says of the next line, 0 if it was not asked."""
    n_lines = number = 0
    while n_lines < _MOST_PASSED:
        number = spelling_at(data, at, names)
        if not number:
            break
        _, _, _, _, _, size, kind, _ = _names_of(names)[number - 1]
        found = line_end(data, at + size) if kind == 0 else -1
        if found < 0 or not found & 1:
            break
        at = (found >> 1) + 2
        n_lines += 1
        number = 0
    return at << 24 | n_lines << 12 | number


@functools.lru_cache(maxsize=16)
def _names_of(names: bytes) -> list[tuple[int, ...]]:
    return list(struct.iter_unpack("<8q", names[2 * _PLACES :]))


def token_at(data: bytes, at: i64, table: bytes) -> i64:
    """Where octets end of which the table makes something. Three numbers in one: that place; in one bit whether one of
    them became 128 or more; in ten bits the sum of what they became. -1: `data` ends before."""
    total = seen = 0
    while 0 <= at < len(data):
        octet = table[data[at]]
        if not octet:
            return at << 11 | (seen & 128) << 3 | (total & 1023)
        total += octet
        seen |= octet
        at += 1
    return -1


def has_at(data: bytes, at: i64, octets: bytes) -> bool:
    """Do these octets stand there, with none of them before the first or behind the last?"""
    return at >= 0 and data.startswith(octets, at)


def has_octet(data: bytes, start: i64, end: i64, octet: i64) -> bool:
    """Is it among those from `start`, which is not negative, to `end`?"""
    return start >= 0 and octet in data[start : max(0, end)]


def text_of(data: bytes, start: i64, end: i64) -> str:
    """These octets, of which neither end is negative, as text: each is one character."""
    return data[start:end].decode("latin-1")


def cut(data: bytes, start: i64, end: i64) -> bytes:
    """These octets, of which neither end is negative."""
    return data[start:end]


def cut_three(data: bytes, a: i64, a_end: i64, b: i64, b_end: i64, c: i64, c_end: i64) -> bytes:
    """Three stretches of octets in one; no end is negative."""
    return data[a:a_end] + data[b:b_end] + data[c:c_end]


def join_five(a: bytes, b: bytes, c: bytes, d: bytes, e: bytes) -> bytes:
    """All of them in one. `%` takes twice as long."""
    return b"".join((a, b, c, d, e))


def join_seven(a: bytes, b: bytes, c: bytes, d: bytes, e: bytes, f: bytes, g: bytes) -> bytes:
    """Likewise."""
    return b"".join((a, b, c, d, e, f, g))


def is_clean(text: str) -> bool:
    """Is it ASCII without control characters, quotation marks and backslashes: in JSON the same as it is?"""
    return _clean(text) is not None


def join_three(a: str, b: str, c: str) -> str:
    """All of them in one. This is quicker than an f-string."""
    return f"{a}{b}{c}"


def join_many(
    a: str,
    b: str,
    c: str,
    d: str,
    e: str,
    f: str,
    g: str,
    h: str,
    i: str,
    j: str,
    k: str,
    l: str,  # noqa: E741
    m: str,
    n: str,
    o: str,
) -> str:
    """The same of as many as a line of the access log has: no tuple is made of them."""
    return "".join((a, b, c, d, e, f, g, h, i, j, k, l, m, n, o))


def id_line(octets: bytes, at: i64) -> bytes:
    """The field X-Request-ID with the 16 octets from `at` on in hex. Raises IndexError if there are fewer."""
    if at + 16 > len(octets):
        raise IndexError("fewer than 16 octets")
    return b"X-Request-ID: %b\r\n" % octets[at : at + 16].hex().encode()


def length_line(length: i64) -> bytes:
    """The field Content-Length."""
    return b"Content-Length: %d\r\n" % length


def drop_last(items: list[Any]) -> None:
    """Take the last one out. Raises IndexError if there is none. Compiled, the list keeps its memory for the next."""
    del items[-1]


def add_to(cells: list[int], at: i64, amount: i64) -> None:
    """Count so much more in this cell. Raises IndexError if there is no such cell."""
    if at < 0:
        raise IndexError("list index out of range")
    cells[at] += amount


def read_now(fd: i64, size: i64) -> bytes:
    """read(2) of a descriptor that does not block. Compiled, the memory that is taken is what came, not `size`, and no
    other thread runs meanwhile, which would be more to do than the reading."""
    return os.read(fd, size)


def write_now(fd: i64, data: bytes) -> i64:
    """write(2) of a descriptor that does not block, likewise: how much was taken."""
    return os.write(fd, data)


def write_last(fd: i64, data: bytes) -> i64:
    """The same for a socket, where `shut_now` follows at once: TCP keeps what fills no segment, so that it and the FIN
    are one."""
    sent = int(_sockets().send(int(fd), data, ctypes.c_size_t(len(data)), _MORE))
    if sent < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return sent


def events_now(epoll: object, fd: i64, most: i64) -> bytes:
    """What an epoll says now, of at most so many and at most 256 descriptors: the number of each and its events, four
    octets each, the lowest first. fd: of the epoll itself."""
    assert isinstance(epoll, select.epoll)
    return packed_events(epoll.poll(0, max(1, min(most, 256))))


def packed_events(events: list[tuple[int, int]]) -> bytes:
    """Descriptors with their events, as `events_now` has them."""
    return b"".join([struct.pack("<iI", *event) for event in events])


def watch_now(epoll: object, epoll_fd: i64, fd: i64, events: i64) -> i64:
    """Have an epoll wait for these events of a descriptor that it does not know yet. Returns 0 or an errno. epoll_fd:
    of the epoll itself."""
    assert isinstance(epoll, select.epoll)
    try:
        epoll.register(fd, events)
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


def change_now(epoll: object, epoll_fd: i64, fd: i64, events: i64) -> i64:
    """Have it wait for other events of a descriptor that it knows; for none: forget it. Returns 0 or an errno."""
    assert isinstance(epoll, select.epoll)
    try:
        if events:
            epoll.modify(fd, events)
        else:
            epoll.unregister(fd)
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


def accept_now(listening: Any, fd: i64) -> object:
    """accept(2) of a listening TCP socket that does not block: a descriptor, which does not block either, and its
    peer's address as `socket.accept` has it. None: nobody waits. Raises OSError. fd: of the listening socket itself."""
    try:
        accepted, peer = listening._accept()
    except (BlockingIOError, InterruptedError):
        return None
    os.set_blocking(accepted, False)
    return accepted, peer


def dial_now(family: i64, name: bytes) -> i64:
    """Begin to connect a TCP socket that does not block. Twice its descriptor, and one more if the connection stands,
    with TCP_NODELAY; or a negative errno, and nothing is left. One that stands with both ends on one socket, since the
    kernel chose the port that was asked for, is reset and counts as refused. name: sockaddr_in or sockaddr_in6."""
    library, size = _sockets(), len(name)
    if size != _NAME_BYTES.get(int(family), _NAME_BYTES_6):
        return -errno.EINVAL
    fd = int(library.socket(int(family), _DIALLED, 0))
    if fd < 0:
        return -int(ctypes.get_errno())
    number = _connect(fd, name)
    if number == errno.EINPROGRESS:
        number = _connect(fd, name)
    if number in (errno.EINPROGRESS, errno.EALREADY, errno.EINTR):
        return 2 * fd
    if not number and _name(library.getsockname, fd) == _name(library.getpeername, fd):
        library.setsockopt(fd, _SOL_SOCKET, _SO_LINGER, struct.pack("2i", 1, 0), 8)
        number = errno.ECONNREFUSED
    if number:
        library.close(fd)
        return -number
    library.setsockopt(fd, _TCP, _NODELAY, struct.pack("i", 1), 4)
    return 2 * fd + 1


def _connect(fd: int, name: bytes) -> int:
    return ctypes.get_errno() if _sockets().connect(fd, name, len(name)) else 0


def _name(ask: Any, fd: int) -> bytes:
    """Family, port and address of one end; of IPv6 without what only one end has."""
    room, size = ctypes.create_string_buffer(_NAME_BYTES_6), ctypes.c_uint(_NAME_BYTES_6)
    ask(fd, room, ctypes.byref(size))
    return room.raw[:8] if size.value < _NAME_BYTES_6 else room.raw[:4] + room.raw[8:24]


def shut_now(fd: i64) -> i64:
    """Send a FIN on this socket behind all that was written. Returns 0, or -1 if it has no peer any more."""
    return int(_c_library().shutdown(int(fd), _SHUT_WR))


def close_now(fd: i64) -> i64:
    """Close a descriptor. Returns 0, or -1 if something went wrong, and it is closed nevertheless."""
    return int(_c_library().close(int(fd)))


def has_news(fd: i64) -> bool:
    """Can something be read from this descriptor, its end and an error included? One system call, no exception."""
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLRDHUP)
    return bool(poll.poll(0))


def has_octets(fd: i64) -> bool:
    """Is there anything on this socket that was not read, other than its end?"""
    return int(_c_library().recv(int(fd), ctypes.create_string_buffer(1), ctypes.c_size_t(1), _LOOK)) > 0


def frame(kind: i64, flags: i64, stream_id: i64, payload: bytes) -> bytes:
    """A frame of HTTP/2 (RFC 9113 section 4.1), of which the payload is not longer than its header can say."""
    return frame_begin(len(payload), kind, flags, stream_id) + payload


def frame_begin(size: i64, kind: i64, flags: i64, stream_id: i64) -> bytes:
    """The nine octets before a payload of so many octets."""
    return int((size << 16) | (kind << 8) | flags).to_bytes(5, "big") + int(stream_id).to_bytes(4, "big")


def join_four(first: bytes, second: bytes, third: bytes, fourth: bytes) -> bytes:
    """All of them in one."""
    return first + second + third + fourth


def spliced(
    first: bytes, octets: bytes, start: i64, skip_from: i64, skip_to: i64, second: bytes, third: bytes, fourth: bytes
) -> bytes:
    """All of them in one; of `octets` those from `start` on, without those from `skip_from` to `skip_to`, in this order
    and none of them negative."""
    return b"".join((first, octets[start:skip_from], octets[max(start, skip_to) :], second, third, fourth))


def literal_at(block: bytes, at: i64) -> i64:
    """A field of HPACK that stands there and enters no table (RFC 7541 section 6.2.2), if its name is spelled out, in 1
    to 64 octets, and its value is one that HTTP allows (RFC 9113 section 8.2.1), with at most 254; neither of them in
    Huffman's code. Three numbers in one: where its value begins; in eight bits how long that is; in eight more how long
    the name is, which begins two octets behind `at`, and was not looked at. -1: it is anything else."""
    octets = block[at : at + _MOST_BEFORE_VALUE] if at >= 0 else b""
    name_size = octets[1] if len(octets) > 2 and not octets[0] else 0
    value_size_at = 2 + name_size
    if not 1 <= name_size <= _MOST_NAME or value_size_at >= len(octets):
        return -1
    size, start = octets[value_size_at], value_size_at + 1
    if size > _MANY or (size == _MANY and (start >= len(octets) or octets[start] > _MANY)):
        return -1
    if size == _MANY:
        size, start = _MANY + octets[start], start + 1
    value = block[at + start : at + start + size]
    if len(value) != size or value_end(value, 0) != size or value.strip(b" \t") != value:
        return -1
    return (at + start) << 16 | size << 8 | name_size


_MOST_NAME: Final = 64
_MANY: Final = 127  # a size from which on it takes more than one octet
_MOST_BEFORE_VALUE: Final = 2 + _MOST_NAME + 2


def huffman_text(data: bytes, start: i64, end: i64, tables: bytes) -> bytes:
    """What these octets, of which neither end is negative, say in HPACK's code.

    tables: for each of 256 states and the four bits that come then, which state follows; behind these, what happens
    (1: a symbol is there, 2: it is EOS); then the symbol; and behind all of them, for each state, 1 if it may be the
    last. The first state is 0. Raises ValueError for what is no such code.
    """
    found = bytearray()
    state = 0
    for octet in data[start:end]:
        for bits in (octet >> 4, octet & 15):
            place = state << 4 | bits
            happens = tables[_STATES_BITS + place]
            if happens > 1:
                raise ValueError("EOS stands in a Huffman code")
            if happens:
                found.append(tables[2 * _STATES_BITS + place])
            state = tables[place]
    if not tables[3 * _STATES_BITS + state]:
        raise ValueError("a Huffman code ends with padding that is no prefix of EOS")
    return bytes(found)


_STATES_BITS: Final = 256 * 16


def timeout_line(ms: i64, behind: bytes) -> bytes:
    """The field grpc-timeout, as lbproxy writes it, and what is behind it."""
    return b"grpc-timeout: %dm\r\n%b" % (ms, behind)


def hpack_literal(begin: bytes, value: bytes) -> bytes:
    """A field of HPACK that is spelled out: its value, without Huffman's code, behind what says its name."""
    return begin + _hpack_size(len(value)) + value


def hpack_own(lines: bytes) -> bytes:
    """Lines `name: value` with CR LF as HPACK has fields that enter no table (RFC 7541 section 6.2.2), if all of them
    have names that lbproxy writes itself: content-length, grpc-timeout, x-request-id. Else b""."""
    pieces = []
    for line in lines.split(b"\r\n")[:-1]:
        name, colon, value = line.partition(b": ")
        begin = _OWN_FIELDS.get(name.lower())
        if begin is None or not colon or b"\r" in value:
            return b""
        pieces.append(hpack_literal(begin, value))
    return b"".join(pieces) if lines.endswith(b"\r\n") else b""


_OWN_FIELDS: Final = {b"content-length": b"\x0f\x0d", b"grpc-timeout": b"\0\x0cgrpc-timeout",
                      b"x-request-id": b"\0\x0cx-request-id"}  # fmt: skip


def _hpack_size(size: int) -> bytes:
    """RFC 7541 section 5.1, with a prefix of seven bits."""
    if size < 127:
        return bytes((size,))
    octets = [127]
    size -= 127
    while size >= 128:
        octets.append(128 | (size & 127))
        size >>= 7
    octets.append(size)
    return bytes(octets)


def address_of(cells: object) -> tuple[int, int, object]:
    """Where the numbers of a memoryview stand in memory, how many there are, and what keeps them there; 0 if that is
    unknown."""
    if not isinstance(cells, memoryview) or cells.format != "q" or not cells.nbytes:
        return 0, 0, None
    kept = (ctypes.c_char * cells.nbytes).from_buffer(cells)
    return ctypes.addressof(kept), len(cells), kept


def load_cell(address: i64, at: i64) -> i64:
    """The number `at` places behind the one at the address, in memory that processes share. Whoever calls this sees to
    it that it is there."""
    return ctypes.c_int64.from_address(address + _WORD * at).value


def store_cell(address: i64, at: i64, value: i64) -> i64:
    """Write it there, likewise, and not before all that was written earlier. Returns 0."""
    ctypes.c_int64.from_address(address + _WORD * at).value = value
    return 0


def try_lock(address: i64) -> i64:
    """Take the mutex of the C library that stands there, if it is free. Returns 0 or an errno."""
    return int(_c_library().pthread_mutex_trylock(ctypes.c_void_p(address)))


def unlock(address: i64) -> i64:
    """Let it go. Returns 0 or an errno."""
    return int(_c_library().pthread_mutex_unlock(ctypes.c_void_p(address)))


@functools.cache
def _sockets() -> ctypes.CDLL:
    """The C library, where errno is asked for."""
    return ctypes.CDLL(None, use_errno=True)


@functools.cache
def _c_library() -> ctypes.PyDLL:
    return ctypes.PyDLL(None)
