"""Where leases are kept: one module a store, all behind ``manager.Manager``."""
