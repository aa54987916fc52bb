"""What measures: arrivals, load, reports. Nothing that is shipped imports from here.

Questions and rules are in ``README.md``. No correctness is asserted here; that is what tests are for.
"""
