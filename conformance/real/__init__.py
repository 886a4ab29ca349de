"""Real container runtimes as clients of the plugins."""
