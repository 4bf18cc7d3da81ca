"""Which forest scores: watched, loaded, swapped in, and compared with a challenger."""
