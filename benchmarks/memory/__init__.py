"""What a connection costs in memory: kept and idle, or with a request under way. Run `python -m benchmarks.memory`."""
