"""The page for people: templates, pictures and their routes."""
