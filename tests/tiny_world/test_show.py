from __future__ import annotations

import io

from PIL import Image

from semdpo.tiny_world import show


class _Grey:
    """Stands in for a renderer, and records its captions."""

    def __init__(self) -> None:
        self.captions: list[str] = []

    def render(self, prompts: list[str], seeds: list[int]) -> list[Image.Image]:
        assert len(set(seeds)) == len(prompts)
        self.captions += prompts
        return [Image.new("RGB", (64, 64), "grey") for _ in prompts]


def test_the_sheet_shows_every_caption_twice_and_is_the_same_each_time() -> None:
    renderer = _Grey()
    sheet = show.contact_sheet(renderer, count=8, columns=3)
    assert len(renderer.captions) == 8
    image = Image.open(io.BytesIO(sheet))
    cell_width, cell_height = 2 * show.SHOWN + 2 + 2 * show.MARGIN, show.SHOWN + 4 * show.LINE + 2 * show.MARGIN
    assert image.size == (3 * cell_width, 3 * cell_height + 2 * show.LINE)
    assert sheet == show.contact_sheet(_Grey(), count=8, columns=3)
