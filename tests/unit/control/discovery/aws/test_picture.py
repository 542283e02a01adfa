import pytest

from lbproxy.control.discovery.aws.picture import Picture


def test_servers_are_called_by_what_aws_calls_them() -> None:
    picture = Picture()
    picture.add("i-1", "10.0.0.1", 80, "eu-central-1a")
    picture.add("10.0.0.2", "10.0.0.2", 80, verdict="unhealthy")
    picture.add("i-3", "2001:DB8:0::1", 80)
    assert [(item.name, str(item.address), item.zone) for item in picture.found] == [
        ("i-1:80/10.0.0.1", "10.0.0.1:80", "eu-central-1a"),
        ("10.0.0.2:80", "10.0.0.2:80", ""),
        ("i-3:80/2001:DB8:0::1", "[2001:db8::1]:80", ""),
    ]
    assert picture.says == {"10.0.0.2:80": "unhealthy"}


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        Picture().add("i-1", "nonsense", 80)
