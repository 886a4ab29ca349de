"""The node daemon: leases this node's subnet, programs the paths to all others, writes subnet.env."""
