"""Answers as HTML: pictures with scores in order, what chance is, and what was seen."""

from __future__ import annotations

import base64
import html
import io
from typing import Any

from neural_clip.app.answers import SIMULATED, Answer
from neural_clip.files.privacy import shared_text
from neural_clip.gallery.hits import Hit
from neural_clip.prepared.modalities import MODALITIES

SIDE = 160  # pixels of a picture
STYLE = """
.answer ol { display: flex; flex-wrap: wrap; gap: 1rem; list-style: none; padding: 0; margin: 0.5rem 0; }
.answer li { width: 10rem; margin: 0; }
.answer figure { margin: 0; }
.answer img, .answer .none { width: 10rem; height: 10rem; object-fit: contain; image-rendering: pixelated;
  border: 3px solid transparent; }
.answer .none { display: flex; align-items: center; font-size: 0.8rem; overflow: hidden; }
.answer .right img { border-color: #0072b2; }
.answer figcaption { font-size: 0.85rem; overflow-wrap: anywhere; }
.answer .seen { margin-bottom: 0.5rem; width: 10rem; }
.answer [role=alert] { border-left: 4px solid #d55e00; padding: 0.5rem 0.75rem; overflow-wrap: anywhere; }
@media (max-width: 30rem) { .answer li, .answer .seen, .answer img, .answer .none { width: 8rem; height: auto; }
  .answer .none { height: 8rem; } }
"""


def refusal(sentence: str) -> str:
    """Why there is no answer."""
    return f'<div class="answer"><p role="alert">{html.escape(sentence)}</p></div>'


def as_html(answer: Answer) -> str:
    """An answer; everything that comes from files is escaped."""
    mark = f"{SIMULATED} · " if answer.simulated else ""
    asked = answer.asked if answer.asked.startswith(SIMULATED) else mark + answer.asked
    parts = [f'<p class="asked"><strong>{html.escape(asked)}</strong></p>']
    if answer.right is not None:
        name = html.escape(answer.seen_name)
        picture = _picture(answer.seen, f"the image that was seen: {answer.seen_name}", "The set has no pixels.")
        caption = f"<figcaption>{mark}seen: {name}</figcaption>"
        parts.append(f'<figure class="seen">{picture}{caption}</figure>')
    parts.append(f'<p class="chance">{mark}{html.escape(answer.searched.chance)}</p>')
    if (confidence := answer.hits.confidence) is not None:
        told = f"Confidence in the first image: {confidence:.1%}, if the image that was seen is among those searched."
        parts.append(f'<p class="confidence">{mark}{told}</p>')
    parts.append("<ol>" + "".join(_item(hit, answer, mark) for hit in answer.hits) + "</ol>")
    return f'<div class="answer">{"".join(parts)}</div>'


def _item(hit: Hit, answer: Answer, mark: str) -> str:
    """One hit."""
    name, who = hit.concept or hit.image_id, ""
    if hit.subject:
        who = f", {MODALITIES[hit.modality].title} of {hit.subject}"
    right = answer.right == (hit.file, hit.image_id)
    told = f"{mark}{hit.rank}. cosine {hit.score:.3f}{who}: {name}" + (" (the image that was seen)" if right else "")
    picture = _picture(hit.image, f"number {hit.rank}: {name}", shared_text(hit.why_no_image))
    kind = ' class="right"' if right else ""
    return (
        f'<li{kind} data-image-id="{html.escape(hit.image_id)}"><figure>{picture}'
        f"<figcaption>{html.escape(told)}</figcaption></figure></li>"
    )


def _picture(image: Any, alt: str, why_not: str) -> str:
    """An image at the size of the page, or why there is none."""
    if image is None:
        return f'<div class="none">{html.escape(why_not)}</div>'
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    small.save(content, "PNG")
    address = base64.b64encode(content.getvalue()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{address}">'
