"""Page of the metric: its inputs and scores as JSON, and its README."""

import json
from pathlib import Path

import evaluate
import gradio

FOLDER = Path(__file__).resolve().parent
EXAMPLE = {
    "predictions": "[[1.0, 0.1], [0.2, 1.0], [0.9, 0.2]]",
    "references": "[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]",
    "prediction_ids": "",
    "reference_ids": '["cat_1", "car_1", "cat_1"]',
    "classes": '["cat", "car", "cat"]',
    "subjects": "",
    "seed": "0",
}


def scores(*texts):
    """Scores of what the fields hold; empty ones are inputs that are not given."""
    metric = evaluate.load(str(FOLDER / "image_retrieval.py"))
    try:
        given = {name: json.loads(text) for name, text in zip(EXAMPLE, texts, strict=True) if text.strip()}
        return metric.compute(**given)
    except ValueError as error:
        raise gradio.Error(str(error)) from error


gradio.Interface(
    fn=scores,
    inputs=[gradio.Textbox(label=name, value=text) for name, text in EXAMPLE.items()],
    outputs=gradio.JSON(label="scores"),
    title="Metric: image retrieval",
    article=(FOLDER / "README.md").read_text(encoding="utf-8").split("---\n", 2)[2],
).launch()
