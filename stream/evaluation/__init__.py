"""Is what is shown true? An audit of explanations by slower and independent means, on held-out impressions."""
