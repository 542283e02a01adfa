"""From callgrind's file to instructions per request and function."""

from __future__ import annotations

import pytest

from benchmarks.instructions.profile import Profile, label_of, parse, part_of, per_request

OWN = "/venv/lib/python3.11/site-packages/lbproxy__mypyc.cpython-311-x86_64-linux-gnu.so"
# `_finish` (10 + 5) calls mypyc's helper (20 in all), another function of ours (300) and the interpreter (107).
TEXT = f"""\
# callgrind format
version: 1
desc: Trigger: Client Request: real

positions: line
events: Ir
summary: 442

ob=(1) {OWN}
fl=(1) ???
fn=(1) CPyDef_exchange___Exchange____finish
0 10
cfn=(2) CPyDict_Get
calls=2 0
0 20
cfn=(3) CPyDef_pool___Pool_____init__
calls=1 0
* 300
cob=(2) /usr/lib/libpython3.11.so.1.0
cfi=(2) Objects/bytesobject.c
cfn=(4) PyBytes_Replace
calls=1 0
+3 107
-2 5

fn=(2)
0 20

fn=(3)
0 300

ob=(2)
fl=(2)
fn=(4)
0 100
cfn=(4)
calls=1 0
0 7

fn=(5) PyBytes_Replace'2
0 7
totals: 442
"""


def test_what_each_function_costs_itself() -> None:
    profile = parse(TEXT)
    assert profile.functions == {
        "exchange.Exchange._finish": 15,
        "CPyDict_Get [lbproxy__mypyc]": 20,
        "pool.Pool.__init__": 300,
        "PyBytes_Replace [python]": 107,
    }
    assert profile.total == 442 == sum(profile.functions.values())
    assert profile.own == 335


def test_what_the_interpreter_does_for_a_function_is_that_functions() -> None:
    assert parse(TEXT).with_python == {"exchange.Exchange._finish": 15 + 20 + 107, "pool.Pool.__init__": 300}


def test_the_part_has_a_name() -> None:
    assert part_of(TEXT) == "real"
    assert part_of(TEXT.replace("Client Request: real", "Program termination")) == ""


def test_anything_but_instructions_is_refused() -> None:
    with pytest.raises(ValueError, match="Ir Dr Dw"):
        parse(TEXT.replace("events: Ir", "events: Ir Dr Dw"))


def test_per_request() -> None:
    found = per_request(Profile(1003, 250, {"a": 750, "b": 249, "c": 4}, {"a": 1003}), 10)
    assert found == Profile(100, 25, {"a": 75, "b": 25}, {"a": 100})


@pytest.mark.parametrize(
    ("fn", "obj", "label"),
    [
        ("CPyDef_http1____Sink___on_header", OWN, "http1._Sink.on_header"),
        ("CPyPy_turn_end___TurnEnd___flush", OWN, "turn_end.TurnEnd.flush (called by the interpreter)"),
        ("CPyDef_prepare___prepare.part.0.cold", OWN, "prepare.prepare"),
        ("CPyDef_prepare___prepare", "/x/site-packages/lbproxy/dataplane/exchange/prepare.so", "prepare.prepare"),
        ("CPyDef_build___build", "/x/site-packages/6ec57f84__mypyc.so", "CPyDef_build___build [6ec57f84__mypyc]"),
        ("list_dealloc'2", "/usr/bin/python3.11", "list_dealloc [python]"),
        ("memcpy@GLIBC_2.2.5", "/usr/lib/libc.so.6", "memcpy@GLIBC_2.2.5 [libc]"),
        ("0x0000000004936758", "/usr/lib/libc.so.6", "(without a name) [libc]"),
        ("0x0000000004936758", "???", "(without a name) [???]"),
    ],
)
def test_names_for_people(fn: str, obj: str, label: str) -> None:
    assert label_of(fn, obj) == label
