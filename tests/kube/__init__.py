"""A real Kubernetes on nodes in namespaces: its programs, the machines, the tests.

`python -m tests.kube` shows it. What each part is, and where the logs are: docs/cluster.md.
"""
