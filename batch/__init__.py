"""The batch layer: history becomes features, models and a report."""
