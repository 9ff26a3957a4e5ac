"""Tests of off-policy estimates."""
