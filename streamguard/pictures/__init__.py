"""What page and report draw alike: SVG, wording and templates. They need the extra [serve] or [batch]."""
