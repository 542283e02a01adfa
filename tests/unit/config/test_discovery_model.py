from __future__ import annotations

import pytest
from pydantic import ValidationError

from lbproxy.config.discovery_model import Discovery


def test_a_platform_that_is_not_there_is_none() -> None:
    assert (Discovery().aws, Discovery().kubernetes) == (None, None)


def test_a_platform_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Discovery.model_validate({"nomad": {}})
