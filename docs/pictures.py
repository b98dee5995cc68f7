"""Make the pictures of the documentation: `python -m docs.pictures clouds|diagram|page …`.

    # a tile of LiDAR HD that the ready-made network learnt from: as delivered, as labelled, in truth; and its report
    T=lidarhd_50m/test_data_77060_627755_LA93_IGN69.laz
    pointloom segment --scans $T --checkpoint pretrained/airborne --out labelled
    python -m docs.pictures clouds --delivered $T --labelled labelled/*.laz --truth $T
    pointloom evaluate --labelled labelled --truth $T --out scores --label-scheme pretrained/airborne/classes.json
    python -m docs.pictures page --url scores/report.html --out docs/images/report.png --size 1200 1180 --wait-s 12
    # the way of the data, drawn by mermaid from the diagram in README.md; `npm pack mermaid` brings mermaid.min.js
    python -m docs.pictures diagram --mermaid mermaid.min.js
    # a flow run in the Prefect UI of `make up`
    UI=http://127.0.0.1:4200/runs/flow-run
    python -m docs.pictures page --url $UI/ID --out docs/images/prefect-ui.png --size 1280 860

`clouds` needs Pillow; `diagram` and `page` need `pip install -e '.[pictures]'` and Debian's chromium.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pointcloud.cloud import Cloud
from pointcloud.formats.reader import read_cloud
from pointcloud.labels import PRESETS

PROJECT = Path(__file__).parent.parent
IMAGES = PROJECT / "docs" / "images"
MAX_BYTES = 300_000
_CHROMIUM = "/usr/bin/chromium"
_CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
                   "--disable-background-networking", "--disable-component-update"]  # fmt: skip
_GREY = (178, 178, 178)
_PAPER = (255, 255, 255)


def main(arguments: list[str] | None = None) -> int:
    """Make one picture; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m docs.pictures", description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    clouds = kinds.add_parser("clouds")
    for name in ("delivered", "labelled", "truth"):
        clouds.add_argument(f"--{name}", required=True)
    clouds.add_argument("--out", type=Path, default=IMAGES / "delivered-labelled-truth.png")
    diagram = kinds.add_parser("diagram")
    diagram.add_argument("--mermaid", type=Path, required=True)
    diagram.add_argument("--out", type=Path, default=IMAGES / "way-of-the-data.svg")
    page = kinds.add_parser("page")
    page.add_argument("--url", required=True, help="an address, or the path of an HTML file")
    page.add_argument("--out", type=Path, required=True)
    page.add_argument("--size", type=int, nargs=2, default=(1280, 900), metavar=("WIDTH", "HEIGHT"))
    page.add_argument("--wait-s", type=float, default=5.0, help="until the page has drawn itself")
    page.add_argument("--click", action="append", default=[], help="texts to click on, one after the other")
    page.add_argument("--scroll-to", help="a text to scroll to")
    page.add_argument("--hide", action="append", default=[], help="CSS selectors that are not shown")
    given = parser.parse_args(arguments)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    if given.kind == "clouds":
        write_png(given.out, three_views(given.delivered, given.labelled, given.truth))
    elif given.kind == "diagram":
        given.out.write_text(way_of_the_data(given.mermaid))
    else:
        screenshot(given)
    print(f"{given.out}: {given.out.stat().st_size:,} bytes")
    return 0


def three_views(delivered: str, labelled: str, truth: str) -> Any:
    """One picture of three: the scan in grey, with the classes it was given, with its true classes."""
    from PIL import Image, ImageDraw, ImageFont

    before, after, right = read_cloud(delivered), read_cloud(labelled), read_cloud(truth)
    grey = np.broadcast_to(np.array(_GREY, np.uint8), (len(before), 3))
    views = [view(before.xyz, grey), view(after.xyz, colours(after)), view(right.xyz, colours(right))]
    height, width = views[0].shape[:2]
    sheet = Image.new("RGB", (3 * width + 20, height + 66), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(22)
    for index, (picture, name) in enumerate(
        zip(views, ("as delivered", "as labelled", "the truth"), strict=True)
    ):
        left = index * (width + 10)
        sheet.paste(Image.fromarray(picture), (left, 32))
        draw.text((left + width // 2, 14), name, "#222222", font, anchor="mm")
    x = 10
    named = [(label.name, label.colour, label.source_codes) for label in PRESETS["asprs"].classes]
    others = [code for code in range(256) if all(code not in codes for _, _, codes in named)]
    for name, colour, codes in [*named, ("no class", "#{:02x}{:02x}{:02x}".format(*_GREY), others)]:
        if np.isin(right.attributes["classification"], codes).mean() > 1e-3:
            draw.rectangle((x, height + 42, x + 16, height + 58), colour)
            draw.text((x + 24, height + 50), name, "#222222", font, anchor="lm")
            x += 44 + int(draw.textlength(name, font))
    return sheet


def colours(cloud: Cloud) -> np.ndarray:
    """(P, 3) uint8, of each point's class in the label scheme `asprs`; grey without one."""
    table = np.full((256, 3), _GREY, np.uint8)
    for label in PRESETS["asprs"].classes:
        table[list(label.source_codes)] = [int(label.colour[i : i + 2], 16) for i in (1, 3, 5)]
    return table[cloud.attributes["classification"]]


def view(
    xyz: np.ndarray, rgb: np.ndarray, width: int = 560, turn_deg: float = 35, tilt_deg: float = 40
) -> np.ndarray:
    """(H, W, 3) uint8: points seen from the south and above, without perspective.

    Depth is shown by eye-dome lighting: a pixel is the darker, the farther it lies behind its neighbours (Boucheny,
    2009).

    Args:
        xyz: (P, 3) coordinates.
        rgb: (P, 3) uint8.
        width: of the picture, pixels.
        turn_deg, tilt_deg: of the view about the vertical, and down from the horizon.
    """
    turn, tilt = np.radians([turn_deg, tilt_deg])
    x, y, z = (xyz - (xyz.min(0) + xyz.max(0)) / 2).T
    across, away = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    up = away * np.sin(tilt) + z * np.cos(tilt)
    depth = away * np.cos(tilt) - z * np.sin(tilt)
    scale = (width - 8) / np.ptp(across)
    column = ((across - across.min()) * scale).astype(int) + 3
    row = ((up.max() - up) * scale).astype(int) + 3
    picture = np.full((row.max() + 5, width, 3), _PAPER, np.uint8)
    nearest = np.full(picture.shape[:2], np.inf)
    order = np.argsort(-depth)  # the nearest point of a pixel is written last
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        at = row[order] + i, column[order] + j
        closer = depth[order] < nearest[at]
        at = at[0][closer], at[1][closer]
        picture[at], nearest[at] = rgb[order][closer], depth[order][closer]
    return _eye_dome(picture, nearest * scale)


def _eye_dome(picture: np.ndarray, depth: np.ndarray) -> np.ndarray:
    shade = np.zeros(depth.shape)
    filled = np.isfinite(depth)
    for i, j in ((-2, 0), (2, 0), (0, -2), (0, 2), (-1, -1), (1, 1), (-1, 1), (1, -1)):
        beside = np.roll(depth, (i, j), (0, 1))
        both = filled & np.isfinite(beside)
        shade[both] += np.clip(depth[both] - beside[both], 0, 14)
    light = np.exp(-shade / 70)[..., None]
    return np.where(filled[..., None], picture * light, picture).astype(np.uint8)


def write_png(path: Path, picture: Any, max_bytes: int = MAX_BYTES) -> None:
    """Write a Pillow picture as a PNG of at most so many bytes, if needed with 256 colours, then fewer pixels."""
    from PIL import Image

    buffer = _png(picture.convert("RGB"))
    share = 1.0
    while buffer.tell() > max_bytes:
        size = round(picture.width * share), round(picture.height * share)
        smaller = picture if share == 1 else picture.resize(size, Image.Resampling.LANCZOS)
        buffer = _png(
            smaller.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        )
        share *= 0.85
    path.write_bytes(buffer.getvalue())


def _png(picture: Any) -> io.BytesIO:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer


def way_of_the_data(mermaid: Path) -> str:
    """The diagram in README.md as SVG."""
    found = re.search(r"```mermaid\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)
    if not found:
        raise SystemExit("README.md has no mermaid diagram.")
    with chromium((1200, 800)) as page:
        page.set_content("<body></body>")
        page.add_script_tag(path=str(mermaid))
        return page.evaluate(
            """async text => {
                mermaid.initialize({startOnLoad: false, theme: 'neutral', htmlLabels: false,
                                    themeCSS: '.edgeLabel rect { fill: #fff; opacity: 1 }',
                                    flowchart: {htmlLabels: false, useMaxWidth: false}});
                return (await mermaid.render('way', text)).svg;
            }""",
            found[1],
        )


def screenshot(given: argparse.Namespace) -> None:
    """A page in headless Chromium as a PNG."""
    from PIL import Image

    address = given.url if "://" in given.url else Path(given.url).resolve().as_uri()
    with chromium(tuple(given.size)) as page:
        page.goto(address, wait_until="load")
        page.wait_for_timeout(1000 * given.wait_s)
        for text in given.click:
            page.get_by_text(text, exact=True).first.click()
            page.wait_for_timeout(1000 * given.wait_s)
        for selector in given.hide:
            page.add_style_tag(content=f"{selector} {{ display: none !important }}")
        if given.scroll_to:
            page.get_by_text(given.scroll_to).first.scroll_into_view_if_needed()
            page.wait_for_timeout(1000 * given.wait_s)
        write_png(given.out, Image.open(io.BytesIO(page.screenshot())))


@contextmanager
def chromium(size: tuple[int, int]) -> Iterator[Any]:
    """A page of a headless Chromium that is ended afterwards."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_CHROMIUM_FLAGS)
        try:
            yield browser.new_page(viewport={"width": size[0], "height": size[1]})
        finally:
            browser.close()


if __name__ == "__main__":
    sys.exit(main())
