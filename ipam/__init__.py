"""host-local: addresses for pods out of the node's ranges, one file per lease.

The binary `host-local`, and the allocator that `flannel` calls in its own process. Imports
nothing of ours but `cni`, and `netlink` where leases have vanished.
"""
