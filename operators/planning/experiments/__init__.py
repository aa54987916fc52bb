"""Which arm of an Endpoint is worth more to its users? Answers that may be read at any time, and shares that follow.

- ``assignment``: whether units were assigned as was asked; where they were not, nothing else may be concluded.
- ``effect``: how much more one arm is worth than another, with an interval that holds at every look at once.
- ``bandit``: shares that move towards the better arm, never so far that the other one is no longer learned about.
- ``verdict``: all of that for the arms of an Endpoint, in words.
- ``course``: from one report of the routers to the next, and what has to be remembered.

Belongs here: from sums of rewards to conclusions and shares. Never here: where rewards come from, and who gets what.
"""
