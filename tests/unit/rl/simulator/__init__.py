"""Tests of rl.simulator."""
