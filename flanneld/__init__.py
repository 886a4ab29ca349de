"""The node daemon: leases a subnet for its node, programs the paths to all others.

Writes the ``subnet.env`` that the pair of plugins reads.
"""
