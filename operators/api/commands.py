"""What people and the operator tell each other of a rollout; no imports, since the command line starts with these."""

from __future__ import annotations

PROMOTE, ABORT, RETRY = "penstock.dev/promote", "penstock.dev/abort", "penstock.dev/retry"
"""Annotations of a Model that name a rollout: ``REVISION@BEGAN``; for the first two ``REVISION`` will do."""
PAUSED = "penstock.dev/paused"
"""Annotation of a Model whose rollouts are held by hand, also one that is still to begin: since when, RFC 3339."""
COMMANDS = (PROMOTE, ABORT, RETRY, PAUSED)
"""What people ask for beside what the spec says; it outlives an apply that does not mention it."""
ONGOING = ("Progressing", "Paused", "Waiting")
"""States of a rollout that is not over."""
