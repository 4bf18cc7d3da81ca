"""What the batch layer leaves on disk: the directories of runs, their reports, and the manifest of an archive."""
