"""Rows become a model: frames and labels, estimator, metrics, the fitted artifact."""
