"""How rows come into the fault table."""

from __future__ import annotations

import pytest

from lbproxy import errors
from lbproxy.fault import FAULTS, upstream_row


def test_words_are_unique() -> None:
    with pytest.raises(ValueError, match="'reset' is defined twice"):
        upstream_row("reset", 502, "connection_terminated", "Twice.")
    assert FAULTS["reset"] is errors.RESET
