"""The app of `python -m include.retraining`, a command a function, and what becomes of errors."""
