"""Where objects live: SQLite in local mode, the Kubernetes API in a cluster. Never here: what to do about them."""
