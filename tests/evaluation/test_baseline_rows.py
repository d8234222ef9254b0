"""Progress of baselines: as many ridges as were counted, whatever they share."""

from types import SimpleNamespace

import pytest
import tqdm

from neural_clip.errors import DataError
from neural_clip.evaluation import baseline_rows, tasks
from neural_clip.evaluation.baselines.cost import Cost
from neural_clip.evaluation.finished_parts import NOT_KEPT

FIRST, SECOND = "per-subject ridge", "pooled whitened ridge"


@pytest.mark.parametrize("ticks", [{FIRST: 3, SECOND: 5}, {FIRST: 3, SECOND: 1}, {FIRST: 0, SECOND: 0}])
def test_the_bar_ends_at_what_was_counted(ticks, monkeypatch):
    """Where the second baseline finds three of its five ridges finished by the first, and where one is not fitted."""
    bars = []
    monkeypatch.setattr(tqdm, "tqdm", lambda *a, tqdm=tqdm.tqdm, **k: bars.append(tqdm(*a, **k)) or bars[-1])
    monkeypatch.setattr(baseline_rows, "LONG", 0.0)
    costs = {FIRST: Cost(3, 1.0, 2), SECOND: Cost(2, 1.0, 2)}
    monkeypatch.setattr(baseline_rows, "costs_of", lambda names, train: costs)
    seen = []

    def predicted(name, splits, parts):
        for _ in range(ticks[name]):
            parts.tick()
            seen.append(bars[0].n)
        if not ticks[name]:
            raise DataError("There are no training recordings to fit it on.")
        return {"predictions": None}, {}

    monkeypatch.setattr(baseline_rows, "predicted", predicted)
    monkeypatch.setattr(tasks, "decoding_rows", lambda *given: ([{}], {}))
    data = SimpleNamespace(data=SimpleNamespace(key="eeg"))
    rows, _, _ = baseline_rows.baseline_rows(data, [None], 0, [FIRST, SECOND], NOT_KEPT)
    assert len(rows) == 2 and bars[0].n == bars[0].total == 5
    assert seen == sorted(seen) and seen[:3] == ([1, 2, 3] if ticks[FIRST] else [])
    assert all("not_computed" in row for row in rows) == (not ticks[FIRST])
