"""Numbers of RFC 9113 and their names."""

from __future__ import annotations

from lbproxy.protocol.h2.codes import ENHANCE_YOUR_CALM, HTTP_1_1_REQUIRED, NO_ERROR, PREFACE, error_name


def test_names_of_errors() -> None:
    assert error_name(NO_ERROR) == "NO_ERROR"
    assert error_name(ENHANCE_YOUR_CALM) == "ENHANCE_YOUR_CALM"
    assert error_name(HTTP_1_1_REQUIRED) == "HTTP_1_1_REQUIRED"
    assert error_name(42) == "0x2a"


def test_the_preface_is_that_of_section_3_4() -> None:
    assert PREFACE.hex() == "505249202a20485454502f322e300d0a0d0a534d0d0a0d0a"
