"""The slate policy: module, clone, PPO learner, runners and bundle."""
