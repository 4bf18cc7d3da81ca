"""What an event is: its scored part, what its texts alone give away, and a chunk of them as arrays."""
