"""The bridge plugin: what a pod's attachment looks like, planned first, then applied or undone."""
