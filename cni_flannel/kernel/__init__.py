"""The one place that talks to Linux: netlink, network namespaces, sysctls, packet filters."""
