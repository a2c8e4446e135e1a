"""The service: consumes impressions, explains them, archives what was said. All input and output happens here."""
