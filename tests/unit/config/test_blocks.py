from __future__ import annotations

from lbproxy.config.blocks import Block, Cut, cut

TEXT = """\
# a file
---

admin: off   # of no use
listeners:
- bind: :80
  pool: a

pools:  # all
  # the first
  a:
    servers: [x:1]
# between
  'b':
  - x
log: {level: info}
"""


def test_one_piece_for_each_key_and_for_each_pool_with_the_lines_before_it() -> None:
    assert cut(TEXT) == Cut(
        (
            Block("admin: off   # of no use\n", 3),
            Block("listeners:\n- bind: :80\n  pool: a\n\n", 4),
            Block("pools:\n  a:\n    servers: [x:1]\n# between\n", 9, is_pool=True),
            Block("pools:\n  'b':\n  - x\n", 12, is_pool=True),
            Block("log: {level: info}\n", 15),
        ),
        first_line=4,
        pools_line=9,
        pool_line=11,
        pool_column=3,
    )


def test_pools_that_are_no_block_stay_in_one_piece() -> None:
    for text in ("pools: {a: {}}\n", "pools:\n- a\n", "pools:\n", "'pools':\n  a: {}\n"):
        assert cut(text) == Cut((Block(text, 0),), 1)


def test_pools_twice() -> None:
    assert cut("pools:\n  a: {}\npools:\n  b: {}\n") is None
