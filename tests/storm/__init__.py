"""Storms: hundreds of reorgs, restarts of everything and lost messages, with payments running; then the count.

What a node believes in the end must be what the final chain alone says. ``python -m tests.storm --reorgs 500 --seed 1``
runs one over a real bitcoind, ``--simulated`` one on the embedded chain.
"""
