"""Packet filters, and a deletion that another process waits for: what is the plugin's alone.

Links, addresses, namespaces and switches are in ``netlink``, which the daemon uses too.
"""
