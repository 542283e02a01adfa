"""What is said about the machine."""

import platform

import pytest

from benchmarks.load.environment import parse_cpu_model, parse_release


def test_the_model_of_the_first_core() -> None:
    assert (
        parse_cpu_model("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nmodel name\t: other\n") == "Some CPU @ 3 GHz"
    )


def test_machines_that_name_no_model() -> None:
    assert parse_cpu_model("processor\t: 0\nFeatures\t: fp\n") == platform.machine()


@pytest.mark.parametrize(
    ("release", "numbers"), [("6.1.0-18-amd64", "6.1.0"), ("6.18.44-x", "6.18.44"), ("odd", "odd")]
)
def test_only_the_numbers_of_the_kernel_release(release: str, numbers: str) -> None:
    assert parse_release(release) == numbers
