"""Networks of the same neurons, trained by the same rules, on tasks that unfold in time. `load(path)` gives a run's network back."""

from spyolo.sequence.saved import load

__all__ = ["load"]
