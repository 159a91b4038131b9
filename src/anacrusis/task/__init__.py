"""What a model should be good at: examples, gold answers, splits and a metric."""

from .images import Images
from .metrics import METRICS, Kind, Metric
from .splits import Split
from .task import DataWarning, Example, Task, golds_of

__all__ = ["METRICS", "DataWarning", "Example", "Images", "Kind", "Metric", "Split", "Task", "golds_of"]
