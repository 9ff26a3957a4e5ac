"""The made-up shop: a generator of logs whose truth is known."""
