"""The ``flannel`` CNI plugin: attaches a pod to the node's bridge, in one process."""
