"""Comparisons that are kept: the store, exports, provenance, batches, votes."""
