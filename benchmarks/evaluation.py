"""An evaluation in a process of its own: processor seconds and peak memory.

    python benchmarks/evaluation.py --checkpoint checkpoints/untrained --data meg=data/meg --output-dir outputs/real \
        --baselines ridge --no-controls

Takes the words of `neural-clip evaluate`. Peak memory is what the process holds by itself (RssAnon, looked at every
20 ms, with everything that it imported); pages of files that are mapped into memory, which the system takes back when
it needs them, stand beside it (`peak_with_files_gb`). `benchmarks/synthetic.py` makes data of real size. Needs Linux.
"""

from __future__ import annotations

import json
import resource
import sys
import time

from closed_form import Peak


def main() -> None:
    """Print one line of JSON."""
    from neural_clip.commands.evaluate import main as evaluate

    started = time.time()
    with Peak() as peak:
        report = evaluate([*sys.argv[1:], "--no-pictures"])
    found = {
        "wall_s": round(time.time() - started, 1), "processor_s": round(peak.seconds, 1),
        "peak_gb": round(peak.largest / 1e6, 2),
        "peak_with_files_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "scores": {
            f"{modality}, {row['method']}": row.get("two_way", row.get("not_computed"))
            for modality, table in report["decoding"].items()
            for row in table["rows"]
            if row["aggregation"] == "single trial"
        },
    }  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
