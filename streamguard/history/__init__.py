"""The fold over files: reads events, replays them, and measures the detection."""
