"""Finished comparisons as records, claims, HTML and CSV."""
