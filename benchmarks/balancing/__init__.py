"""Balancing benchmark: what waiting for a slot costs. Run it with `python -m benchmarks.balancing`."""
