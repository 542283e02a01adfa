"""Which kinds of load there are."""

from benchmarks.h2.cases import CASES


def test_each_pair_of_protocols_is_there_in_both_shapes_and_with_new_fields() -> None:
    small = {(case.server, case.tls, case.connections, case.streams, case.is_unique) for case in CASES.values()}
    for server, tls in (("h1", False), ("h2", False), ("h1", True)):
        for shape in ((1, 32), (32, 1)):
            for is_unique in (False, True):
                assert (server, tls, *shape, is_unique) in small


def test_a_call_of_grpc_goes_over_one_channel() -> None:
    assert {case.connections for case in CASES.values() if case.kind == "grpc"} == {1}
