"""Rows get their features: definitions, feature tables, point-in-time join, online values, skew."""
