"""Pins: spots that the reader of the viewer marked, as its state has them. No torch, no gradio."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

MOST_PINS = 8
RADIUS = 10

Pin = tuple[float, float]


def read_pins(text: str) -> list[Pin]:
    """The pins in "0.25_0.5~0.1_0.9": (x, y) in [0, 1]. None where anything in it is wrong, as in the viewer."""
    try:
        pins = [(float(x), float(y)) for x, y in (pin.split("_") for pin in text.split("~"))]
    except ValueError:
        return []
    inside = all(0 <= value <= 1 for pin in pins for value in pin)
    return pins if inside and len(pins) <= MOST_PINS else []


def colour(picture: Image.Image, pin: Pin) -> tuple[int, int, int]:
    """Red, green and blue of an RGB picture at the pin."""
    column, row = (min(side - 1, int(part * side)) for part, side in zip(pin, picture.size, strict=True))
    return picture.getpixel((column, row))  # type: ignore[return-value]  # of an RGB picture


def draw_pin(pen: ImageDraw.ImageDraw, centre: tuple[float, float], number: int) -> None:
    """A ring with its number beside `centre`, which stays visible."""
    x, y = centre
    pen.ellipse((x - 3, y - 3, x + 3, y + 3), outline="white", width=1)
    x, y = x + RADIUS + 3, y - RADIUS - 3
    pen.ellipse((x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS), fill="#121212", outline="white")
    pen.text((x, y), str(number), "white", ImageFont.load_default(13), anchor="mm")
