"""Tests of the slate policy."""
