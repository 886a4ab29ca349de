"""How the pods of a peer are reached: one module a backend, planners without a system call."""
