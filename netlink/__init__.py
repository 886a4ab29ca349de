"""The kernel's network for all programs: netlink messages, a socket, namespaces, and settings."""
