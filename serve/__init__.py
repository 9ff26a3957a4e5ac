"""The online service: ranker, API and history."""
