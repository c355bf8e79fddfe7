"""Draw pspnet.svg and psanet.svg beside this file:  python figure/make_figures.py"""

from pathlib import Path

HERE = Path(__file__).resolve().parent
BLUE, GREEN, ORANGE, GRAY, RED = "#cfe2f9", "#d5edd3", "#fbe0c4", "#e8eaee", "#f6d3d6"
INK = "#24303f"
HEAD = f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{width}} {{height}}" \
font-family="Helvetica, Arial, sans-serif" font-size="13" text-anchor="middle" fill="{INK}">
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" \
orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{INK}"/></marker></defs>
<rect width="{{width}}" height="{{height}}" fill="white"/>
"""


class Drawing:
    """An SVG to which shapes are added; each shape is placed by its centre."""

    def __init__(self, width: int, height: int) -> None:
        self.parts = [HEAD.format(width=width, height=height)]

    def text(self, x: float, y: float, lines: str, *, size: int = 13, color: str = INK) -> None:
        """Lines of text, centred on (x, y)."""
        rows = lines.split("\n")
        for i, row in enumerate(rows):
            line = y + (i - (len(rows) - 1) / 2) * (size + 3) + size * 0.35
            self.parts.append(
                f'<text x="{x:g}" y="{line:g}" font-size="{size}" fill="{color}">{row}</text>\n'
            )

    def box(self, x: float, y: float, w: float, h: float, lines: str, fill: str) -> None:
        """A rounded box: something that computes."""
        self.parts.append(
            f'<rect x="{x - w / 2:g}" y="{y - h / 2:g}" width="{w:g}" height="{h:g}" rx="5" '
            f'fill="{fill}" stroke="{INK}"/>\n'
        )
        self.text(x, y, lines)

    def map(self, x: float, y: float, side: float, depth: float, fill: str, bins: int = 0) -> None:
        """A feature map as a slab, seen from the side; `bins` x `bins` cells on its face."""
        left, top, d = x - side / 2, y - side / 2, depth
        corners = f"{left:g},{top:g} {left + d:g},{top - d:g} {left + side + d:g},{top - d:g} "
        corners += f"{left + side + d:g},{top + side - d:g} {left + side:g},{top + side:g}"
        self.parts.append(
            f'<polygon points="{corners} {left:g},{top + side:g}" fill="{fill}" stroke="{INK}"/>\n'
            f'<path d="M{left:g} {top:g} h{side:g} v{side:g} M{left + side:g} {top:g} l{d:g} '
            f'{-d:g}" fill="none" stroke="{INK}"/>\n'
        )
        for i in range(1, bins):
            step = side * i / bins
            self.parts.append(
                f'<path d="M{left + step:g} {top:g} v{side:g} M{left:g} {top + step:g} h{side:g}" '
                f'stroke="{INK}" stroke-width="0.7"/>\n'
            )

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line through the points, with a tip at the last one."""
        path = " L".join(f"{x:g} {y:g}" for x, y in points)
        self.parts.append(
            f'<path d="M{path}" fill="none" stroke="{INK}" stroke-width="1.3" '
            'marker-end="url(#tip)"/>\n'
        )

    def save(self, name: str) -> None:
        """Write the file."""
        (HERE / name).write_text("".join(self.parts) + "</svg>\n", encoding="utf-8")


def street(drawing: Drawing, x: float, y: float, *, is_label: bool) -> None:
    """A small street scene, as image or as label map."""
    sky, house, tree, road, car = (
        ("#569ed6", "#5e5868", "#40803b", "#814884", "#1633a0")
        if is_label
        else ("#cfe6f5", "#c99a7a", "#7fae6b", "#9a9ca0", "#c33d3d")
    )
    shapes = (
        ("0,0 90,0 90,66 0,66", sky),
        ("0,12 22,22 22,44 0,54", house),
        ("90,8 70,22 70,44 90,56", house),
        ("30,66 42,40 50,40 84,66", road),
        ("0,54 22,44 42,40 30,66 0,66", "#e584d2" if is_label else "#c9c4ba"),
        ("84,66 50,40 70,44 90,56 90,66", "#e584d2" if is_label else "#c9c4ba"),
        ("26,20 38,20 38,36 33,36 33,44 31,44 31,36 26,36", tree),
        ("50,46 66,46 70,54 70,60 47,60 47,54", car),
    )
    drawing.parts.append(f'<g transform="translate({x - 45:g} {y - 33:g})">\n')
    for points, color in shapes:
        drawing.parts.append(f'<polygon points="{points}" fill="{color}"/>\n')
    drawing.parts.append(f'<rect width="90" height="66" fill="none" stroke="{INK}"/></g>\n')


def trunk(drawing: Drawing, y: float) -> None:
    """Input and dilated ResNet, up to the arrow that leaves layer4's features."""
    street(drawing, 60, y, is_label=False)
    drawing.text(60, y + 48, "image\nN x 3 x H x W", size=11)
    drawing.arrow((106, y), (130, y))
    drawing.box(178, y, 92, 60, "dilated\nResNet", BLUE)
    drawing.text(178, y + 48, "stride 8: layer3, layer4\nwith dilation 2, 4", size=11)
    drawing.arrow((225, y), (250, y))
    drawing.map(278, y, 50, 12, GREEN)
    drawing.arrow((178, y - 30), (178, y - 66))
    drawing.box(178, y - 84, 150, 34, "auxiliary head (layer3)", RED)
    drawing.text(178, y - 112, "in training only, loss weight 0.4", size=11)


def head(drawing: Drawing, x: float, y: float) -> None:
    """Classifier and prediction, from x on."""
    drawing.arrow((x, y), (x + 24, y))
    drawing.box(x + 66, y, 84, 60, "3x3 conv\n1x1 conv", RED)
    drawing.arrow((x + 108, y), (x + 134, y))
    street(drawing, x + 180, y, is_label=True)
    drawing.text(x + 180, y + 48, "logits, upsampled", size=11)


def pspnet() -> None:
    """Zhao et al., CVPR 2017, figure 3."""
    drawing, y = Drawing(1000, 330), 175
    drawing.text(510, 18, "PSPNet: pyramid pooling module", size=15)
    trunk(drawing, y)
    drawing.text(282, y + 48, "N x C x h x w", size=11)
    for bins, row in zip((1, 2, 3, 6), (62, 126, 190, 254), strict=True):
        drawing.arrow((312, y), (330, y), (330, row), (354, row))
        drawing.map(376, row, 38, 8, ORANGE, bins)
        drawing.text(376, row + 29, f"pool to {bins}x{bins}", size=11)
        drawing.arrow((406, row), (428, row))
        drawing.box(464, row, 70, 34, "1x1 conv", BLUE)
        drawing.arrow((500, row), (520, row))
        drawing.box(560, row, 78, 34, "upsample", GRAY)
        drawing.arrow(
            (600, row), (628, row), (628, y + 11 * (row - y) / 64), (650, y + 11 * (row - y) / 64)
        )
    drawing.arrow((330, y), (330, 302), (640, 302), (640, y + 28), (650, y + 28))
    drawing.text(479, 313, "features as they are", size=11)
    drawing.map(686, y, 66, 16, GREEN)
    drawing.text(692, y + 54, "concatenation\nN x 2C x h x w", size=11)
    head(drawing, 738, y)
    drawing.save("pspnet.svg")


def psanet() -> None:
    """Zhao et al., ECCV 2018, figure 2."""
    drawing, y = Drawing(1170, 345), 180
    drawing.text(560, 18, "PSANet: point-wise spatial attention module", size=15)
    trunk(drawing, y)
    drawing.text(282, y + 48, "N x C x h x w", size=11)
    for name, row in (("collect", 105), ("distribute", 245)):
        drawing.arrow((312, y), (330, y), (330, row), (352, row))
        drawing.box(392, row, 78, 44, "1x1 conv,\nreduce", BLUE)
        drawing.arrow((432, row), (452, row), (452, row - 22), (474, row - 22))
        drawing.arrow((452, row), (452, row + 34), (690, row + 34), (690, row + 12))
        drawing.box(516, row - 22, 82, 44, "attention\n(1x1 convs)", RED)
        drawing.arrow((558, row - 22), (580, row - 22))
        drawing.box(622, row - 22, 82, 44, f"mask to\n{name}", ORANGE)
        drawing.arrow((664, row - 22), (690, row - 22), (690, row - 12))
        drawing.text(516, row - 53, "relative positions", size=11)
        drawing.text(626, row - 53, "h'w' x h'w', softmax", size=11)
        drawing.box(690, row, 24, 22, "&#215;", GRAY)
        drawing.arrow(
            (703, row), (726, row), (726, y + 6 * (row - y) / 60), (748, y + 6 * (row - y) / 60)
        )
    drawing.text(545, y - 14, "on a map of half the size (shrink_factor 2), h' x w'", size=11)
    drawing.map(766, y, 36, 10, GREEN)
    drawing.arrow((790, y), (806, y))
    drawing.box(837, y, 66, 44, "project,\nupsample", BLUE)
    drawing.arrow((870, y), (888, y))
    drawing.map(906, y, 34, 14, GREEN)
    drawing.arrow((330, y), (330, 318), (880, 318), (880, y + 12), (888, y + 12))
    drawing.text(600, 329, "features as they are", size=11)
    drawing.text(930, y + 40, "N x 2C x h x w", size=11)
    head(drawing, 936, y)
    drawing.save("psanet.svg")


if __name__ == "__main__":
    pspnet()
    psanet()
