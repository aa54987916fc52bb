"""The command line: what people type and read.

Belongs here: reading files, choosing where to act, showing objects, and `penstock up`, which puts the parts
together. Never here: what should be done about an object.
"""
