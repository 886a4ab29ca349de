"""Chains of plugins with real traffic: `python -m conformance runtime`."""
