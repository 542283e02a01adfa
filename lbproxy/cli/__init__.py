"""The command `lbproxy`, a module for each family of commands; `program.py` has the parser and the exit statuses."""

from lbproxy.cli.program import build_parser, main

__all__ = ["build_parser", "main"]
