"""What retraining policies would have done in a model's past."""
