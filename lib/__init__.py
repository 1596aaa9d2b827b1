"""Multimodal industrial anomaly detection: extractors, heads, metrics and the road between them."""
