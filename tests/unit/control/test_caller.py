from lbproxy.control.caller import Caller


def test_a_caller_is_told_by_its_token_and_where_it_is() -> None:
    assert [str(item) for item in (Caller("ci", "192.0.2.9"), Caller("", "127.0.0.1"), Caller("", "unix"))] == [
        "ci from 192.0.2.9",
        "127.0.0.1",
        "the unix socket",
    ]
