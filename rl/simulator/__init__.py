"""The response model fitted on logs, and the tensor simulator built from it."""
