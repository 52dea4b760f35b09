"""Code and model files that the DAGs import from their bundle."""
