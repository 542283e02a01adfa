"""The static table is that of RFC 7541 appendix A."""

from __future__ import annotations

from hpack.table import HeaderTable

from lbproxy.protocol.h2.fields import AUTHORITY, BAD, HOST, METHOD
from lbproxy.protocol.h2.static_table import N_STATIC, NAME_INDEX, STATIC


def test_it_is_the_table_of_the_library() -> None:
    assert tuple((field.name, field.value) for field in STATIC) == HeaderTable.STATIC_TABLE
    assert len(STATIC) == N_STATIC


def test_names_are_found_at_their_lowest_index() -> None:
    assert NAME_INDEX[b":method"] == 2
    assert NAME_INDEX[b"www-authenticate"] == 61
    assert len(NAME_INDEX) == 52


def test_entries_that_are_good_as_names_only() -> None:
    """`:authority` without a value is no field, but it is the name of many."""
    assert (STATIC[0].kind, STATIC[0].name_kind) == (BAD, AUTHORITY)
    assert (STATIC[37].kind, STATIC[37].name_kind) == (BAD, HOST)
    assert (STATIC[1].kind, STATIC[1].name_kind) == (METHOD, METHOD)
    assert [field.name for field in STATIC if field.name_kind == BAD] == [b"transfer-encoding"]
