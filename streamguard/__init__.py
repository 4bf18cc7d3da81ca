"""StreamGuard: what a security event means and how it is judged."""

__version__ = "0.1.0"
