"""Off-policy estimates: what a policy would have earned on the slates that another one showed."""
