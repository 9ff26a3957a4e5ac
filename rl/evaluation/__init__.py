"""Evidence: ranking metrics, off-policy estimates, intervals, gate and report. Arrays in, figures out."""
