"""What should be: pure functions of objects, observation and time.

Belongs here: every decision and its reason. Never here: input or output, a clock, randomness, logging.
"""
