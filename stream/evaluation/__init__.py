"""Evaluation: the faithfulness of explanations, measured on held-out impressions by slower, independent code."""
