"""Load benchmark: lbproxy, HAProxy and nginx in front of one backend. Run it with `python -m benchmarks.load`."""
