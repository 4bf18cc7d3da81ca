"""Campaigns: which incidents belong to one attack."""
