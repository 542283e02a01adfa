from lbproxy.domain.names import NOT_LOOKED_UP, Name


def test_the_life_of_a_name() -> None:
    name = Name("model", 1.0)
    assert (name.is_unresolved, name.why, name.changed_at) == (True, NOT_LOOKED_UP, 1.0)
    assert name.failed("no such name", 2.0) and name.changed_at == 2.0
    assert not name.failed("no such name", 3.0) and name.changed_at == 2.0, "the same again is no news"
    assert name.answered(2, 4.0) and (name.is_unresolved, name.why, name.changed_at) == (False, "", 4.0)
    assert not name.answered(2, 5.0) and name.changed_at == 4.0
    assert not name.answered(3, 6.0) and name.changed_at == 6.0
    assert name.failed("no answer", 7.0)
    assert (name.is_unresolved, name.n_addresses) == (False, 3), "the last good answer is kept"
