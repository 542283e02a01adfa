import pytest

from lbproxy.address import Address
from lbproxy.config.one_server import read_server
from lbproxy.config.problems import ConfigError


def test_a_server_is_read_as_in_the_file() -> None:
    [spec] = read_server({"address": "unix:/run/${app}.sock", "weight": 3, "max_inflight": 2, "backup": True})
    assert (spec.address, spec.name) == (Address("", 0, "/run/${app}.sock"), "unix:/run/${app}.sock")
    assert (spec.weight, spec.max_inflight, spec.backup) == (3, 2, True)
    assert [spec.name for spec in read_server({"address": "10.0.0.1:80-81", "name": "a"})] == ["a-80", "a-81"]


def test_each_problem_names_its_key() -> None:
    with pytest.raises(ConfigError) as refused:
        read_server({"address": "http://a", "wieght": 1})
    assert sorted(str(problem) for problem in refused.value.problems) == [
        "address: 'http://a' is a URL; write a:80",
        "wieght: unknown key; did you mean weight?",
    ]


@pytest.mark.parametrize("value", [None, 5, [], {}, {"address": None}, {"a": [[[[[]]]]]}])
def test_what_is_no_server_is_refused(value: object) -> None:
    with pytest.raises(ConfigError):
        read_server(value)
