"""Where history comes from: a topic, an archive, files laid out as a topic; and which offsets a run reads."""
