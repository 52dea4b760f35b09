"""The same from a shell: `python -m include.retraining`, a command a function."""
