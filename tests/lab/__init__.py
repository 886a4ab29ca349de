"""A lab of nodes as network namespaces: daemons, pods attached by the frozen plugins, a real etcd.

Knows programs, the kernel, and the store's keys. Must not know the daemon's own modules.
"""
