"""Linear baselines."""
