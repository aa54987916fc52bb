"""How the container images are made: what they hold, and the base they stand on where there is no registry.

Belongs here: one Containerfile an image, ``install`` and ``inventory``, which run inside a build, and what builds
all of them on one machine. Never here: what the images run.
"""
