"""Plans as Kubernetes objects: pure makers and readers, and the one module that writes."""
