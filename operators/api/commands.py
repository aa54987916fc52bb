"""What people and the operator tell each other of a rollout; no imports, since the command line starts with these."""

from __future__ import annotations

PROMOTE, ABORT, RETRY = "penstock.dev/promote", "penstock.dev/abort", "penstock.dev/retry"
"""Annotations of a Model that name a rollout: ``REVISION@BEGAN``; for the first two ``REVISION`` will do."""
ONGOING = ("Progressing", "Paused", "Waiting")
"""States of a rollout that is not over."""
