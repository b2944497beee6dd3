#!/usr/bin/env python3
"""Checks pages of `distill report` without the program: check_report.py RUN...

Tags balance, nothing is loaded from elsewhere, every data: URI is a whole picture, and the curves, read back from the
drawing by the numbers at its axes, are the values of metrics.jsonl."""
import base64, html.parser, json, math, pathlib, re, struct, sys, zlib

VOID = {"meta", "img", "br", "link", "input", "hr"}
# Title of a chart, less the stage: the figures of its lines, in order.
FIGURES = {
    "loss": ["loss", "validation_loss"],
    "Fréchet distance": ["fd"],
    "PSNR of reconstructions, dB": ["validation_psnr"],
    "squared error of reconstructions": ["validation_mse"],
}


class Page(html.parser.HTMLParser):
    """Collects charts and complains."""

    def __init__(self):
        super().__init__()
        self.open, self.problems, self.charts, self.pictures = [], [], [], 0
        self.ids, self.links, self.caption, self.text = set(), set(), "", ""

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        if tag in ("script", "link", "iframe", "object", "embed", "base"):
            self.problems.append(f"<{tag}> is on the page")
        for name, value in attributes:
            if name.startswith("on"):
                self.problems.append(f"{tag} has a script in {name}")
            if name in ("src", "href", "xlink:href", "srcset", "action", "poster") and not re.match("#|data:", value or ""):
                self.problems.append(f"{tag} loads {value[:60]}")
        if tag == "img":
            self.picture(a)
        if tag == "svg":
            self.charts.append({"title": self.caption, "scale": a["data-scale"], "x": [], "y": [], "lines": []})
            if not a.get("aria-label"):
                self.problems.append("a chart has no description")
        if tag == "text" and "data-value" in a:
            axis = a["class"]
            self.charts[-1][axis].append((float(a["data-value"]), float(a[axis])))
        if tag == "polyline":
            self.charts[-1]["lines"].append([tuple(map(float, p.split(","))) for p in a["points"].split()])
        if tag == "figcaption":
            self.text = self.caption = ""
        if tag == "span" and self.open[-1] == "figcaption":
            self.caption = self.text
        if "id" in a:
            if a["id"] in self.ids:
                self.problems.append(f"two elements have the id {a['id']}")
            self.ids.add(a["id"])
        if a.get("href", "").startswith("#"):
            self.links.add(a["href"][1:])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_data(self, data):
        self.text += data

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> at {self.getpos()} closes nothing")
        if tag == "figcaption":
            self.caption = self.caption or self.text  # a legend may have ended it

    def picture(self, a):
        self.pictures += 1
        kind, data = re.fullmatch("data:image/(png|jpeg);base64,(.*)", a.get("src", ""), re.S).groups()
        data = base64.b64decode(data, validate=True)
        if "alt" not in a:
            self.problems.append("a picture has no alt")
        if not (whole_png(data) if kind == "png" else data[:3] == b"\xff\xd8\xff" and data[-2:] == b"\xff\xd9"):
            self.problems.append(f"a picture is no whole {kind}")


def whole_png(data):
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return False
    at, kind, packed = 8, b"", b""
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 4 : at + 8 + length]
        if zlib.crc32(body) != struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0]:
            return False
        packed += body[4:] if kind == b"IDAT" else b""
        at += 12 + length
    return at == len(data) and len(zlib.decompress(packed)) > 0


def place(ticks, value, scale):
    """Where a value lies on an axis, by its first and last number."""
    f = math.log if scale == "log" else float
    (a, at_a), (b, at_b) = ticks[0], ticks[-1]
    return at_a + (f(value) - f(a)) / (f(b) - f(a)) * (at_b - at_a)


def check_chart(chart, run):
    """Returns the number of points compared."""
    stage, title = chart["title"].split(": ", 1)
    lines = [json.loads(line) for line in open(run / stage.lower() / "metrics.jsonl")]
    names = FIGURES.get(title, [title.replace(" ", "_")])
    names = [name for name in names if any(name in line for line in lines)]
    assert len(names) == len(chart["lines"]), f"{chart['title']}: {len(chart['lines'])} lines, expected {names}"
    assert len(chart["x"]) > 1 and len(chart["y"]) > 1, f"{chart['title']}: too few numbers at its axes"
    compared = 0
    for name, drawn in zip(names, chart["lines"]):
        values = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
        every = max(1, -(-len(values) // 1000))
        values = [v for i, v in enumerate(values) if i % every == 0 or i == len(values) - 1]
        assert len(values) == len(drawn), f"{chart['title']}: {len(drawn)} points, expected {len(values)}"
        for (step, value), (x, y) in zip(values, drawn):
            wanted = place(chart["x"], step, "linear"), place(chart["y"], value, chart["scale"])
            off = max(abs(x - wanted[0]), abs(y - wanted[1]))
            assert off < 0.05, f"{chart['title']}: {name} at step {step} is {off:.3f} off"
            compared += 1
    return compared


for run in map(pathlib.Path, sys.argv[1:]):
    text = (run / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    page.close()
    page.problems += [f"<{tag}> is not closed" for tag in page.open]
    page.problems += [f"nothing has the id {link}" for link in page.links - page.ids]
    style = text[text.index("<style>") : text.index("</style>")]
    page.problems += [f"the style sheet has {word}" for word in ("url(", "@import", "@font-face") if word in style]
    assert not page.problems, f"{run}: " + "; ".join(page.problems[:10])
    points = sum(check_chart(chart, run) for chart in page.charts)
    assert points > 0, f"{run}: no curve was compared"
    print(f"{run}: {page.pictures} pictures, {len(page.charts)} charts, {points} points as in metrics.jsonl")
