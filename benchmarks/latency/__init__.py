"""Latency at a fixed rate, as clients see it who do not wait for each other. Run `python -m benchmarks.latency`."""
