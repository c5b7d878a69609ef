"""The Kubernetes API server for operator and agent alike; knows nothing of Penstock's kinds."""
