"""What this node's packet filters do with a packet: read from all of them, followed as they do."""
