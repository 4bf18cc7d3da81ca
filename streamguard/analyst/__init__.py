"""Analyses of incidents: what happened in words, how it is judged and by which rule, and what to do next."""
