"""Command line, configuration, artifacts, stages and the made-up shop."""
