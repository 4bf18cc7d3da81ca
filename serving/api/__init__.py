"""The HTTP API under `/v1`: routes, errors, keys and sessions."""
