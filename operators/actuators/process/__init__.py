"""One machine as the place where plans come true: child processes behind the same router as in the cluster.

``children`` keeps processes running, ``fetching`` brings artifacts, ``actuator`` makes both and the route table
follow the plans. What must survive a crash of this process is on disk beside each child.
"""
