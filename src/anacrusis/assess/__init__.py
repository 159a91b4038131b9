"""How far a prompt can be trusted: how it fares when its format, wording, order or inputs change, and what it costs."""

from .assessing import assess as assess
from .measure import Finding as Finding
from .measure import Found as Found
from .measure import Measure as Measure
from .measure import all_measures as all_measures
from .subject import Subject as Subject
