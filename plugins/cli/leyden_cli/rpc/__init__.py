"""JSON-RPC 2.0 over a Unix socket: one JSON object per line, in both directions."""
