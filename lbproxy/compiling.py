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

`word_at` is eight octets as such a number. Compiled it is a few machine instructions (hatch_build.py), and so are
`load_cell` and `store_cell`, one cell of memory that processes share, at an address that `address_of` has said: whoever
calls them sees to it that the cell is there. `try_lock` and `unlock` are those of the C library's mutexes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import i64 as i64
    from mypy_extensions import mypyc_attr as mypyc_attr
    from mypy_extensions import trait as trait

    def word_at(data: bytes, at: i64) -> i64:
        """The eight octets from `at` on, which is not negative; the first is the lowest. -1 if there are fewer."""

    def address_of(cells: object) -> tuple[int, int, object]:
        """Where such numbers stand in memory, how many there are, and what keeps them there; 0 if that is unknown."""

    def load_cell(address: i64, at: i64) -> i64:
        """The number `at` places behind the one at the address."""

    def store_cell(address: i64, at: i64, value: i64) -> i64:
        """Write it there; not before all that was written earlier. Returns 0."""

    def try_lock(address: i64) -> i64:
        """Take the mutex that stands there, if it is free. Returns 0 or an errno."""

    def unlock(address: i64) -> i64:
        """Let it go. Returns 0 or an errno."""
else:  # the compiler reads the decorator and nothing needs it when lbproxy runs: no package to install for it
    import ctypes
    import functools

    i64 = int

    def trait(cls):
        return cls

    def mypyc_attr(**_settings):
        return lambda cls: cls

    def word_at(data, at):
        octets = data[at : at + 8]
        return int.from_bytes(octets, "little", signed=True) if len(octets) == 8 else -1

    def address_of(cells):
        if type(cells) is not memoryview or cells.format != "q" or not cells.nbytes:
            return 0, 0, None
        kept = (ctypes.c_char * cells.nbytes).from_buffer(cells)
        return ctypes.addressof(kept), len(cells), kept

    def load_cell(address, at):
        return ctypes.c_int64.from_address(address + 8 * at).value

    def store_cell(address, at, value):
        ctypes.c_int64.from_address(address + 8 * at).value = value
        return 0

    @functools.cache
    def _c_library():
        return ctypes.PyDLL(None)

    def try_lock(address):
        return _c_library().pthread_mutex_trylock(ctypes.c_void_p(address))

    def unlock(address):
        return _c_library().pthread_mutex_unlock(ctypes.c_void_p(address))
