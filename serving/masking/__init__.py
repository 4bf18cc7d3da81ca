"""Who sees what: roles, pseudonyms, and the query service as a caller sees it."""
