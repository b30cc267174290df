"""Leyden: a Lightning node framework. The core owns no socket, clock, key or disk; plugins supply them."""

__version__ = "0.1.0"
