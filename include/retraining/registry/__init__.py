"""Who is in production: MLflow, versions, the succession of champions, their ledger."""
