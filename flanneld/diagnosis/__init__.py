"""How it stands between this node and the others: facts, read once, and judgements of them."""
