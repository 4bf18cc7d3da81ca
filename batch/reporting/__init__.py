"""What a run leaves for people and programs: the report, its page, Parquet."""
