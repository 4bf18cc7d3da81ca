"""The batch layer: it turns history into features, models and a report."""
