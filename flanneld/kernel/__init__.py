"""What the kernel holds, and making it what it should hold: the daemon's only rtnetlink code."""
