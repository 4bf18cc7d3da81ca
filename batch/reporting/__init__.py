"""Output of a run for people and programs: the report as JSON and HTML, and Parquet files."""
