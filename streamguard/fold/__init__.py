"""The fold: computes the surprisal and the patterns of each event, and updates profiles and population with it."""
