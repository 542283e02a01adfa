"""`lbproxy doctor`: what the servers of a config are, found by asking them, and the lines of a config that fit.

answer, processes, pace    what is seen: an answer, who listens on a port, how long requests took (no I/O but /proc)
verdict, advice            what follows from that, for a server and for a pool (pure)
talking, examining         the connections, one after the other, within bounds
"""
