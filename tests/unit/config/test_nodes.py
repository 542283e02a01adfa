"""What the tree is made of does not depend on who has read the text; test_source.py has what is made of it."""

from __future__ import annotations

import pytest
import yaml

from lbproxy.config import common_yaml
from lbproxy.config.nodes import Node, Place, Refused, compose

TEXT = "# first\na:\n  - b: [c, {'d': e}]\n    f:\n"


def outline(node: Node) -> object:
    if node.kind == "mapping":
        return node.place, [(outline(key), outline(item)) for key, item in zip(node.keys, node.items, strict=True)]
    return node.place, [outline(item) for item in node.items] if node.kind == "list" else node.text


def test_the_tree_is_the_same_with_libyaml_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    assert common_yaml.is_common(TEXT)
    quick = compose(TEXT)
    monkeypatch.setattr(common_yaml, "HAS_LIBYAML", False)
    assert compose(TEXT) == quick
    assert outline(quick) == (
        Place(2, 1),
        [
            (
                (Place(2, 1), "a"),
                (
                    Place(3, 3),
                    [
                        (
                            Place(3, 5),
                            [
                                (
                                    (Place(3, 5), "b"),
                                    (
                                        Place(3, 8),
                                        [
                                            (Place(3, 9), "c"),
                                            (Place(3, 12), [((Place(3, 13), "d"), (Place(3, 18), "e"))]),
                                        ],
                                    ),
                                ),
                                ((Place(4, 5), "f"), (Place(4, 7), "")),
                            ],
                        )
                    ],
                ),
            )
        ],
    )


def test_where_libyaml_finds_fault_the_other_says_what_it_is() -> None:
    text = "a: b\n   c: d\n"
    assert common_yaml.is_common(text)
    with pytest.raises(yaml.scanner.ScannerError, match="mapping values are not allowed here"):
        compose(text)
    deep = "".join("  " * level + f"k{level}:\n" for level in range(70))
    assert common_yaml.is_common(deep)
    with pytest.raises(Refused, match="64 levels"):
        compose(deep)
