"""The same fold over files: read them, replay them, and measure what was found."""
