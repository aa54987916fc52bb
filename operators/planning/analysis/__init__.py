"""Is the candidate worse than the stable revision? Sequential tests that may be looked at as often as one likes.

Two promises, each about a revision that keeps its property for as long as it is looked at:

- *no worse than the stable one* (in every metric, window by window): rolled back with probability at most ``alpha``.
- *worse by more than is allowed* (in some metric): promoted with probability at most ``beta``.

Between the two, worse by less than is allowed, either may happen. An e-process is a non-negative process that starts
at 1 and, where its hypothesis holds, is not expected to grow; by Ville's inequality it then ever reaches 1/α with
probability at most α. So nothing needs a horizon, and looking every second costs nothing.

Belongs here: from counters to evidence, from evidence to a verdict and its sentence. Never here: who gets which share
of the traffic, which is decided by what this says.
"""
