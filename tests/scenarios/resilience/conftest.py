"""The invariants after each scenario."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.site import Site


@pytest.fixture
def site(module_site: Site) -> Iterator[Site]:
    """The module's daemon; afterwards nothing is in flight or queued, and nothing is in the error log."""
    module_site.begin()
    yield module_site
    module_site.check()
