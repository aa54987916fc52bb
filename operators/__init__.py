"""What decides: the operator of a cluster, and ``penstock up``, which is the same on one machine.

Belongs here: the API, planning, and acting on plans. Never here: anything that runs beside a model.
"""
