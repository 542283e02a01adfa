"""Costs of the hot pieces, one by one, without sockets: `python -m benchmarks.micro`."""
