"""What an administrator asks of a node: one module a command, all of the same program."""
