from lbproxy.control.discovery.aws.instances import Instance, portions


def test_only_what_runs_is_running() -> None:
    assert Instance("i-1", "10.0.0.1", "", "running").is_running
    assert not Instance("i-1", "10.0.0.1", "", "stopping").is_running


def test_portions() -> None:
    assert list(portions(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(portions([], 2)) == []
