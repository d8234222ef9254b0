"""Page of the metric: fields to try it in, and its README."""

import evaluate
from evaluate.utils import launch_gradio_widget

launch_gradio_widget(evaluate.load("image_retrieval.py"))
