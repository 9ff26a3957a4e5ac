"""Ray connection, job submission and cluster manifests."""
