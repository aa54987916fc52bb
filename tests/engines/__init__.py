"""One suite for every engine: what each supports is measured by ``penstock conformance`` and kept in supported.json."""
