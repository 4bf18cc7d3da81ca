"""Reads the record batches of a fetch within limits: what cannot be read becomes a value that says so.

The worker and the batch layer read topics through this package, so they refuse the same batches.
"""
