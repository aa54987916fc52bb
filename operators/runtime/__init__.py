"""What keeps an operator running: connection, caches, work queue, workers, leadership, health.

Nothing here knows what a Model is, and nothing here decides anything about one. ``queue`` and ``controller``
need no cluster: local mode runs on them too. Importing this package imports none of its modules, since the
Kubernetes client costs about a second.
"""
