"""From a decoded request to its answer: who may wait, who goes next, and with whom.

``queue`` is the one way in and does the doing: threads, counters, time limits. What it does is decided by values in
``admission`` (who may wait), ``line`` (who goes next) and ``batching`` (who goes together). Nothing here knows a
protocol or an engine's kind.
"""

from serving.scheduling.admission import Admission
from serving.scheduling.job import Done, Job, Result
from serving.scheduling.queue import ModelQueue
from serving.scheduling.stream import Stream

__all__ = ["Admission", "Done", "Job", "ModelQueue", "Result", "Stream"]
