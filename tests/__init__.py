"""Unit and integration tests, and benchmarks."""
