"""What retrains and archives have written, read with DuckDB."""
