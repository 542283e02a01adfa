"""Instructions per request, counted by valgrind; a step of `make test` compares them with what is recorded.

Time says how fast a machine is and who else uses it. The number of instructions of a fixed trace is the same on a busy
machine, within a fraction of a percent, so a change that makes the path of every request longer is seen at once.
"""
