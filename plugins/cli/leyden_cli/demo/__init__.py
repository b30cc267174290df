"""``leyden demo``: a chain and two nodes as three processes, and everything that happens to a channel."""
