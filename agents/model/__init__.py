"""The forest in use: follows the registry, loads and swaps models, and scores a challenger beside the champion."""
