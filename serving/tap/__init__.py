"""Mirrored requests: what another revision answers to a request, beside what this server has answered.

Here belongs what happens to a request after its answer is on its way. Never here: anything that a client waits for.
"""
