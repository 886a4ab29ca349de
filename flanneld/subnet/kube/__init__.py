"""The store of leases that is Kubernetes itself: a node's lease is its Node object."""
