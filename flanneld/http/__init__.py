"""HTTP/1.1 for the stores: one client, which nothing can leave waiting for ever."""
