"""The resident process, ``flannel serve``: the verbs of the pair, behind a socket."""
