"""A lock that processes share and that outlives its owner: the C library's robust mutex.

Why this one. What is needed is a lock of which the kernel knows, at every moment, who has it. A semaphore (that of
multiprocessing) doesn't: between taking it and writing down who did a process may be killed, and then nobody can say
whether the lock is held by the dead or by a living one that is about to write its name. File locks are let go by the
kernel, but each costs two system calls. Taking and freeing it, uncontended and compiled, compared with the semaphore as
1: this 1, flock 23. `python -P benchmarks/installed.py benchmarks.micro mutex` measures.

Glibc and musl have it. What a request does goes to the C library straight (compiling.py), all else through ctypes.
Whoever takes it after a death inside is told.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Callable
from typing import Final

from lbproxy.compiling import i64, mypyc_attr, try_lock, unlock
from lbproxy.domain.shared.cells import Guard
from lbproxy.shared.segment import CELL_BYTES

MUTEX_CELLS: Final = 8  # 64 bytes; the C libraries of Linux need 40 or 48
SPINS: Final = 200  # a section takes microseconds: longer than that its owner does not run at this moment
ALARM_S: Final = 0.1

_PROCESS_SHARED: Final = 1
_ROBUST: Final = 1
_ATTRIBUTE_BYTES: Final = 64


@mypyc_attr(native_class=False)
class MutexError(OSError):
    """The system has no such lock, or it can't be had."""


class Mutex(Guard):
    """The lock in the 8 cells from `first` on. `create` makes it, once, before the processes fork.

    held_long(): called when somebody living has had it for ALARM_S seconds while this one waits, each time anew.
    """

    __slots__ = ("_address", "_at", "_held_long", "_time_lock")

    def __init__(self, cells: memoryview, first: int, held_long: Callable[[], None]) -> None:
        try:
            quick, patient = ctypes.PyDLL(None), ctypes.CDLL(None)
            self._time_lock = patient.pthread_mutex_timedlock  # lets other threads run
            for function in (quick.pthread_mutex_consistent, quick.pthread_mutexattr_setrobust):
                function.restype = ctypes.c_int
        except (OSError, AttributeError) as error:
            raise MutexError(errno.ENOSYS, f"this C library has no robust mutexes: {error}") from error
        self._at = (ctypes.c_char * (MUTEX_CELLS * CELL_BYTES)).from_buffer(cells, first * CELL_BYTES)
        self._address: i64 = ctypes.addressof(self._at)
        self._held_long = held_long

    def create(self) -> None:
        """Make it, free. Raises MutexError."""
        library = ctypes.PyDLL(None)
        attribute = ctypes.create_string_buffer(_ATTRIBUTE_BYTES)
        for call, *arguments in (
            (library.pthread_mutexattr_init, attribute),
            (library.pthread_mutexattr_setpshared, attribute, _PROCESS_SHARED),
            (library.pthread_mutexattr_setrobust, attribute, _ROBUST),
            (library.pthread_mutex_init, self._at, attribute),
            (library.pthread_mutexattr_destroy, attribute),
        ):
            self._check(call(*arguments))

    def enter(self) -> bool:
        """See Guard."""
        result: int = try_lock(self._address)
        return False if result == 0 else self._contend(result)

    def _contend(self, result: int) -> bool:
        if result == errno.EBUSY:
            result = spin(lambda: try_lock(self._address))
        return self._taken(result) if result != errno.EBUSY else self._wait()

    def _wait(self) -> bool:
        result = errno.ETIMEDOUT
        while result == errno.ETIMEDOUT:
            until_ns = time.clock_gettime_ns(time.CLOCK_REALTIME) + int(ALARM_S * 1e9)
            until = (ctypes.c_long * 2)(until_ns // 1_000_000_000, until_ns % 1_000_000_000)  # struct timespec
            result = self._time_lock(self._at, until)
            if result == errno.ETIMEDOUT:
                self._held_long()
        return self._taken(result)

    def _taken(self, result: int) -> bool:
        if result == errno.EOWNERDEAD:
            # Before the books are repaired: if this one dies of that, the next one is told again.
            self._check(ctypes.PyDLL(None).pthread_mutex_consistent(self._at))
            return True
        self._check(result)
        return False

    def leave(self) -> None:
        """See Guard."""
        result: int = unlock(self._address)
        if result != 0:
            self._check(result)

    @staticmethod
    def _check(result: int) -> None:
        if result:
            raise MutexError(result, os.strerror(result))


def spin(attempt: Callable[[], int]) -> int:
    """Try to take a lock until it is not busy, or for as long as is worth it. Returns what the last attempt did."""
    for _ in range(SPINS):
        result = attempt()
        if result != errno.EBUSY:
            return result
    return errno.EBUSY
