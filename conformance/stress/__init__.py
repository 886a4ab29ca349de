"""Stress of CNI plugins: crashes, faults, storms, noise and malice, each a verb with a figure."""
