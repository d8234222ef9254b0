"""Procedural images with captions and categories: the pictures that the simulated subjects look at.

An image shows one large outlined object (10 shapes x 4 textures = 40 categories) of one of 8 colours on one of 6
backgrounds, at a free size, position and angle. The object colour and the background make the 1,920 concepts, as many
as the 1,854 object concepts of THINGS (Hebart et al. 2019, doi:10.1371/journal.pone.0223792) need. Everything is drawn
from signed distance fields with numpy alone, so that one specification always gives the same bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from neural_clip.errors import DataError, check_value

SHAPES = ("circle", "square", "triangle", "star", "cross", "heart", "ring", "crescent", "arrow", "hourglass")
TEXTURES = ("solid", "striped", "dotted", "checkered")
COLOURS = {
    "red": (216, 38, 38),
    "orange": (242, 134, 20),
    "yellow": (236, 214, 28),
    "green": (38, 158, 62),
    "cyan": (30, 192, 204),
    "blue": (42, 74, 214),
    "purple": (132, 46, 178),
    "pink": (244, 112, 182),
}
"""Colour names and their sRGB values, 0 to 255."""
BACKGROUNDS = ("plain", "grid", "gradient", "speckle", "horizon", "halo")
CATEGORIES = [f"{texture} {shape}" for shape in SHAPES for texture in TEXTURES]
"""The 40 category names; the index is `shape * 4 + texture`."""
NATIVE_SIZE = 64
"""Side of a rendering in pixels; other sides repeat its pixels."""
SIZE_RANGE = (0.6, 0.9)
"""Diameter of the object's enclosing circle, as a fraction of the image side: large enough to show its outline."""
MAX_ANGLE = 25.0
"""Largest rotation in degrees; a square turned by 45 degrees would be another shape."""
MARGIN = 0.04
"""How far, as a fraction of the image side, the enclosing circle may leave the image."""
_COLOUR_NAMES = tuple(COLOURS)
_COLOUR_VALUES = np.array(list(COLOURS.values()), dtype=np.float32)
_FIELD_SIZE = 192  # cells per side of a tabulated distance field: three per native pixel
_FIELD_EXTENT = 1.5  # the table covers [-1.5, 1.5] object radii: what an image holds of an object of 0.6 and beyond
_OUTLINE = 1.1  # half width of the outline in native pixels
_OUTLINE_TONE = np.float32(22)  # nearly black, grey levels
_PERIOD = 9.0  # of stripes, dots and checks, in native pixels: fine enough to leave the outline readable


@dataclass(frozen=True)
class ImageSpec:
    """Everything that decides one image.

    Args:
        shape (`int`): Index into `SHAPES`.
        texture (`int`): Index into `TEXTURES`.
        colour (`int`): Index into the keys of `COLOURS`.
        background (`int`): Index into `BACKGROUNDS`.
        size (`float`): Diameter of the object's enclosing circle, fraction of the image side.
        x (`float`): Centre from the left edge, fraction of the image side.
        y (`float`): Centre from the top edge, fraction of the image side.
        angle (`float`): Clockwise rotation in degrees.
        seed (`int`): Seed of the nuisances: tone of the background, phase of the texture, speckles.
    """

    shape: int
    texture: int
    colour: int
    background: int
    size: float
    x: float
    y: float
    angle: float
    seed: int

    @property
    def category(self) -> int:
        """Index into `CATEGORIES`."""
        return self.shape * len(TEXTURES) + self.texture

    @property
    def category_name(self) -> str:
        """Name of the category, such as "striped star"."""
        return CATEGORIES[self.category]

    @property
    def concept(self) -> str:
        """Name of the concept, such as "red_striped_star_on_grid"."""
        return _concept_name(self.shape, self.texture, self.colour, self.background)

    @property
    def caption(self) -> str:
        """Lower-case sentence that tells size, colour, texture, shape, background and position."""
        words = ("small", "medium", "large")
        low, high = SIZE_RANGE
        size = words[min(max(int(3 * (self.size - low) / (high - low)), 0), 2)]
        row = "top" if self.y < 0.47 else "bottom" if self.y > 0.53 else "middle"
        column = "left" if self.x < 0.47 else "right" if self.x > 0.53 else "centre"
        colour, background = _COLOUR_NAMES[self.colour], BACKGROUNDS[self.background]
        return f"a {size} {colour} {self.category_name} on a {background} background at the {row} {column}"


def _concept_name(shape: int, texture: int, colour: int, background: int) -> str:
    """Name of a concept from the four indices."""
    return f"{_COLOUR_NAMES[colour]}_{TEXTURES[texture]}_{SHAPES[shape]}_on_{BACKGROUNDS[background]}"


# all concepts with their shape, texture, colour and background, in an order that mixes the categories
_CONCEPT_TABLE = {
    _concept_name(shape, texture, colour, background): (shape, texture, colour, background)
    for background in range(len(BACKGROUNDS))
    for colour in range(len(COLOURS))
    for texture in range(len(TEXTURES))
    for shape in range(len(SHAPES))
}
CONCEPTS = list(_CONCEPT_TABLE)
"""The 1,920 concept names; any stretch of 40 of them holds every category once."""


def sample_specs(
    n: int, rng: np.random.Generator, category: int | str | None = None, concept: str | None = None
) -> list[ImageSpec]:
    """Draw image specifications.

    Args:
        n (`int`): How many.
        rng (`numpy.random.Generator`): Source of every random choice.
        category (`int` or `str`, *optional*): Index into, or member of, `CATEGORIES`; all images show it.
        concept (`str`, *optional*): Member of `CONCEPTS`; all images show it.

    Returns:
        `list[ImageSpec]`: `n` specifications; what is not asked for is uniform.

    Raises:
        DataError: If the category or the concept is unknown, or the two contradict each other.
    """
    kind = _fixed_kind(category, concept)
    specs: list[ImageSpec] = []
    for _ in range(n):
        size = float(rng.uniform(*SIZE_RANGE))
        slack = (1 - size) / 2 + MARGIN
        x, y = 0.5 + rng.uniform(-slack, slack, 2)
        drawn = [int(rng.integers(len(names))) for names in (SHAPES, TEXTURES, COLOURS, BACKGROUNDS)]
        angle, seed = float(rng.uniform(-MAX_ANGLE, MAX_ANGLE)), int(rng.integers(2**31))
        shape, texture, colour, background = (*kind, *drawn[len(kind) :])
        specs.append(ImageSpec(shape, texture, colour, background, size, float(x), float(y), angle, seed))
    return specs


def _fixed_kind(category: int | str | None, concept: str | None) -> tuple[int, ...]:
    """Shape, texture, colour and background as far as the category or the concept decides them."""
    if concept is None:
        return () if category is None else divmod(_category_index(category), len(TEXTURES))
    check_value("concept", concept, concept in _CONCEPT_TABLE, f"a name in CONCEPTS, such as {CONCEPTS[0]!r}")
    kind = _CONCEPT_TABLE[concept]
    own = kind[0] * len(TEXTURES) + kind[1]
    if category is not None and own != _category_index(category):
        raise DataError(
            f"The 'concept' parameter '{concept}' is of category '{CATEGORIES[own]}', "
            f"but the 'category' parameter asks for '{CATEGORIES[_category_index(category)]}'."
        )
    return kind


def _category_index(category: int | str) -> int:
    """Index of a category given by index or name."""
    last = len(CATEGORIES) - 1
    fits = category in CATEGORIES if isinstance(category, str) else 0 <= category <= last
    check_value("category", category, fits, f"0 to {last} or a name in CATEGORIES")
    return CATEGORIES.index(category) if isinstance(category, str) else int(category)


def render(spec: ImageSpec, size: int = NATIVE_SIZE) -> np.ndarray:
    """Draw one image.

    Args:
        spec (`ImageSpec`): What to draw.
        size (`int`): Side of the image in pixels. Sides other than 64 repeat or skip the pixels of the 64-pixel
            rendering (nearest neighbour), so that large images stay compressible and look alike to any encoder.

    Returns:
        `numpy.ndarray` of shape `(size, size, 3)` and dtype uint8: sRGB, the first row on top.

    Raises:
        DataError: If `size` is not positive.
    """
    check_value("size", size, size >= 1, "1 and more")
    rng = np.random.default_rng(spec.seed)
    columns, rows = _pixel_grid()
    canvas = _background(BACKGROUNDS[spec.background], rng)

    radius = spec.size * NATIVE_SIZE / 2  # pixels
    turn = np.deg2rad(spec.angle)
    cosine, sine = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    right, down = columns - np.float32(spec.x * NATIVE_SIZE), rows - np.float32(spec.y * NATIVE_SIZE)
    u, v = right * cosine + down * sine, down * cosine - right * sine  # object axes, pixels
    distance = _lookup(spec.shape, u, v, radius)

    light = _texture(TEXTURES[spec.texture], u, v, rng)  # 0: colour, 1: its pale shade
    inside = np.minimum(np.maximum(np.float32(0.5) - distance, 0), 1)
    edge = np.minimum(np.maximum(np.float32(_OUTLINE + 0.5) - np.abs(distance), 0), 1)
    colour = _COLOUR_VALUES[spec.colour][:, None, None]
    fill = colour + light * (np.float32(0.85) * (250 - colour))
    canvas += inside * (fill - canvas)
    canvas += edge * (_OUTLINE_TONE - canvas)
    canvas += np.float32(0.5)
    image = np.ascontiguousarray(np.clip(canvas, 0, 255, out=canvas).astype(np.uint8).transpose(1, 2, 0))
    if size == NATIVE_SIZE:
        return image
    nearest = np.arange(size) * NATIVE_SIZE // size
    return image[nearest][:, nearest]


@cache
def _pixel_grid() -> tuple[np.ndarray, np.ndarray]:
    """Column (1, 64) and row (64, 1) of every pixel's centre, in pixels."""
    centres = np.arange(NATIVE_SIZE, dtype=np.float32) + 0.5
    return centres[None, :], centres[:, None]


def _background(name: str, rng: np.random.Generator) -> np.ndarray:
    """Background (3, 64, 64) float32, 0 to 255, a pale random tone so that colours and outline stand out."""
    columns, rows = _pixel_grid()
    tone = rng.uniform(140, 215) + rng.uniform(-18, 18, 3)
    pattern = np.zeros((NATIVE_SIZE, NATIVE_SIZE), dtype=np.float32)  # grey levels, added to the tone
    if name == "grid":
        phase = rng.uniform(0, 12, 2).astype(np.float32)
        pattern -= 55 * (((columns + phase[0]) % 12 < 1.5) | ((rows + phase[1]) % 12 < 1.5))
    elif name == "gradient":
        direction = rng.uniform(0, 2 * np.pi)
        pattern += 1.9 * ((columns - 32) * np.float32(np.cos(direction)) + (rows - 32) * np.float32(np.sin(direction)))
    elif name == "speckle":
        coarse = rng.uniform(-45, 45, (NATIVE_SIZE // 4, NATIVE_SIZE // 4)).astype(np.float32)
        pattern += coarse.repeat(4, axis=0).repeat(4, axis=1)
    elif name == "horizon":
        pattern -= 60 * (rows > rng.uniform(24, 44))
    elif name == "halo":
        pattern += 60 - 2.2 * np.hypot(columns - 32, rows - 32)
    return tone.astype(np.float32)[:, None, None] + pattern


def _texture(name: str, u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Share of the pale shade in each pixel, 0 to 1; `u` and `v` are object axes in pixels."""
    phase = rng.uniform(0, _PERIOD, 2).astype(np.float32)
    if name == "solid":
        return np.zeros_like(u)
    s, t = (u + phase[0]) / np.float32(_PERIOD), (v + phase[1]) / np.float32(_PERIOD)  # in periods
    if name == "striped":
        wave = 0.25 - np.abs(t - np.floor(t) - 0.5)
    elif name == "checkered":
        wave = 8 * (np.abs(s - np.floor(s) - 0.5) - 0.25) * (np.abs(t - np.floor(t) - 0.5) - 0.25)
    else:  # dotted
        wave = 0.33 - np.hypot(s - np.floor(s) - 0.5, t - np.floor(t) - 0.5)
    return np.minimum(np.maximum(wave * np.float32(_PERIOD) + np.float32(0.5), 0), 1)


def _lookup(shape: int, u: np.ndarray, v: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance to the outline in pixels, negative inside."""
    scale, last = np.float32(_FIELD_SIZE / (2 * _FIELD_EXTENT * radius)), np.float32(_FIELD_SIZE - 1)
    column = np.minimum(np.maximum(u * scale + _FIELD_SIZE // 2, 0), last).astype(np.int32)
    row = np.minimum(np.maximum(v * scale + _FIELD_SIZE // 2, 0), last).astype(np.int32)
    return _distance_field(shape).ravel().take(row * np.int32(_FIELD_SIZE) + column) * np.float32(radius)


@cache
def _distance_field(shape: int) -> np.ndarray:
    """Table (192, 192) of the signed distance to a shape's outline, in object radii."""
    axis = ((np.arange(_FIELD_SIZE) + 0.5) / _FIELD_SIZE * 2 - 1) * _FIELD_EXTENT
    points = np.stack(np.meshgrid(axis, axis), axis=-1)  # (192, 192, 2) of x, y
    return _OUTLINES[SHAPES[shape]](points).astype(np.float32)


def _polygon_distance(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Signed distance to a closed polygon: nearest edge, with the sign of the even-odd rule."""
    nearest = np.full(points.shape[:-1], np.inf)
    odd = np.zeros(points.shape[:-1], dtype=bool)
    x, y = points[..., 0], points[..., 1]
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2), 0, 1)
        nearest = np.minimum(nearest, np.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay)))
        if ay != by:
            odd ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) * (bx - ax) / (by - ay))
    return np.where(odd, -nearest, nearest)


def _polygon(*corners: tuple[float, float]) -> Callable[[np.ndarray], np.ndarray]:
    """Distance function of a polygon; y points down."""
    return lambda points: _polygon_distance(points, np.array(corners))


def _star(points: np.ndarray) -> np.ndarray:
    """Five-pointed star whose inner radius is 0.4 of the outer one."""
    angles = np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.4)
    return _polygon_distance(points, np.stack([radii * np.sin(angles), 0.05 - radii * np.cos(angles)], axis=-1))


def _heart(points: np.ndarray) -> np.ndarray:
    """Heart curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, scaled into the unit circle."""
    t = np.arange(60) / 60 * 2 * np.pi
    x, y = 16 * np.sin(t) ** 3, 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return _polygon_distance(points, np.stack([x / 16.5, -(y + 2.5) / 16.5], axis=-1))


def _crescent(points: np.ndarray) -> np.ndarray:
    """Unit disc without a disc of radius 0.8 that is shifted to the upper right."""
    disc = np.hypot(points[..., 0], points[..., 1]) - 0.97
    bite = np.hypot(points[..., 0] - 0.5, points[..., 1] + 0.2) - 0.8
    return np.maximum(disc, -bite)


_OUTLINES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "circle": lambda points: np.hypot(points[..., 0], points[..., 1]) - 0.9,
    "square": lambda points: np.abs(points).max(axis=-1) - 0.75,
    "triangle": _polygon((0, -0.9), (0.9, 0.7), (-0.9, 0.7)),
    "star": _star,
    "cross": _polygon(
        *[(-0.3, -0.95), (0.3, -0.95), (0.3, -0.3), (0.95, -0.3), (0.95, 0.3), (0.3, 0.3)],
        *[(0.3, 0.95), (-0.3, 0.95), (-0.3, 0.3), (-0.95, 0.3), (-0.95, -0.3), (-0.3, -0.3)],
    ),
    "heart": _heart,
    "ring": lambda points: np.abs(np.hypot(points[..., 0], points[..., 1]) - 0.7) - 0.25,
    "crescent": _crescent,
    "arrow": _polygon((-0.95, -0.28), (0.1, -0.28), (0.1, -0.75), (0.97, 0), (0.1, 0.75), (0.1, 0.28), (-0.95, 0.28)),
    "hourglass": _polygon((-0.72, -0.85), (0.72, -0.85), (0.12, 0), (0.72, 0.85), (-0.72, 0.85), (-0.12, 0)),
}
