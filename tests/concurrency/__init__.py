"""Two at once, in an order that a seed decides."""
