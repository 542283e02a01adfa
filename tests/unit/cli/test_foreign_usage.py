"""What other programs call a command or an option. What is said of each is in test_program.py."""

from __future__ import annotations

import re

from lbproxy.cli import foreign_usage, program


def test_what_other_programs_call_it_names_what_there_is() -> None:
    """Each hint at a command or an option is at one that exists, and no command is taken for another's."""
    parser = program.build_parser()
    names = list(program.COMMANDS)
    options = {option for name in names for option in program.subparser(parser, name).options()}
    assert not set(foreign_usage.COMMANDS) & set(names)
    hints = " ".join(foreign_usage.COMMANDS.values())
    assert set(re.findall(r"(?:mean |or |lbproxy )([a-z]+)\b", hints)) <= {*names, "stderr", "stops", "prints"}
    assert {word for meant in foreign_usage.OPTIONS.values() for word in meant if " " not in word} <= options
