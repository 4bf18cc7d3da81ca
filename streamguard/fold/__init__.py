"""The fold: profiles and population in, surprises and patterns out, learned from event by event."""
