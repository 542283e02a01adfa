"""Readings of /proc, from texts as the kernel writes them."""

import pytest

from benchmarks.load.procfs import (
    CoreTime,
    descendants,
    parse_core,
    parse_listeners,
    parse_pss_kib,
    parse_rss_kib,
    parse_stat,
)

STAT = "4242 (a) name) (x) S 17 4242 4242 0 -1 4194560 1 2 3 4 55 66 0 0 20 0 1 0 987654 1000 200"
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
LISTENING = "   0: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0\n"
SHARED = "   1: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0\n"
CONNECTED = "   2: 0100007F:1388 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 333 1 0 20 4\n"
OTHER_PORT = (
    "   3: 00000000:1389 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 444 1 0 100 0\n"
)


def test_parent_and_start_are_found_behind_a_name_full_of_brackets() -> None:
    assert parse_stat(STAT) == (17, 987654)


def test_all_listeners_of_a_port_and_nothing_else() -> None:
    table = HEAD + LISTENING + SHARED + CONNECTED + OTHER_PORT
    assert parse_listeners(table, 5000) == {111, 222}
    assert parse_listeners(table, 5001) == {444}
    assert parse_listeners(table, 5002) == set()


def test_listeners_of_ipv6() -> None:
    line = (
        f"   0: {'0' * 32}:1388 {'0' * 32}:0000 0A 00000000:00000000 00:00000000 00000000     0        0 555 1 0 100\n"
    )
    assert parse_listeners(HEAD + line, 5000) == {555}


@pytest.mark.parametrize(("status", "kib"), [("Name:\tx\nVmRSS:\t   14880 kB\n", 14880), ("Name:\tzombie\n", 0)])
def test_resident_memory(status: str, kib: int) -> None:
    assert parse_rss_kib(status) == kib


def test_one_core_is_read_and_not_the_sum_or_core_10() -> None:
    text = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu10 8 8 8 8 8 8 8 8 0 0\ncpu1 1 2 3 40 5 6 7 8 0 0\n"
    assert parse_core(text, 1) == CoreTime(busy=1 + 2 + 3 + 6 + 7, idle=45, stolen=8)


def test_a_core_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="no core 7"):
        parse_core("cpu0 1 2 3 4 5 6 7 8 0 0\n", 7)


def test_a_tree_holds_grandchildren_and_no_strangers() -> None:
    parents = {1: 0, 50: 40, 40: 30, 30: 1, 60: 1, 70: 60}
    assert descendants(parents, 30) == {30, 40, 50}


def test_pss_is_read_from_the_rollup() -> None:
    rollup = "5581-7ffc ---p 00000000 00:00 0    [rollup]\nRss:    6820 kB\nPss:    5031 kB\nPss_Anon:  900 kB\n"
    assert parse_pss_kib(rollup) == 5031
    with pytest.raises(ValueError, match="no Pss"):
        parse_pss_kib("Rss: 1 kB\n")
