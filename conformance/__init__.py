"""Conformance of CNI plugins: the specification as data, held to any plugin binaries."""
