"""How the pods of a peer are reached: one module a backend, all of them planners without a system call."""
