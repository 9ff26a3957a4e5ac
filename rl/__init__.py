"""Tasks, simulator, policy, evaluation and sweep."""
