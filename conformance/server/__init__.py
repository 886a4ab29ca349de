"""Stress of a resident process and its launchers: each module a verb with a figure."""
