"""Tests that start Ray, a service or the command line."""
