"""A trace as one web page without outside parts: a slider over the moments of each canvas.

Text of the model and of the user goes in as data and is shown as text, never as markup.
"""

import base64
import html
import io
import json
import re

from PIL import Image

from unveil.trace.record import Stage, Trace


def to_page(trace: Trace) -> str:
    """The page."""
    data = json.dumps([_stage(stage) for stage in trace.stages]).replace("<", "\\u003c")
    fill = {"@TITLE@": html.escape(trace.title), "@DATA@": data}
    return re.sub("@TITLE@|@DATA@", lambda found: fill[found[0]], _PAGE)


def _stage(stage: Stage) -> dict[str, object]:
    """What the page's script needs: [token is there, confidence, fresh] for each cell at each moment."""
    cells = [[[int(c.token is not None), round(c.confidence, 3), int(c.fresh)] for c in m] for m in stage.moments()]
    plain: dict[str, object] = {"labels": stage.labels, "moments": cells}
    if stage.grid is None or stage.picture is None:
        return plain
    colors = ["#{:02x}{:02x}{:02x}".format(*color) for color in stage.colors()]
    return plain | {"columns": stage.grid[1], "colors": colors, "picture": _data_uri(stage.picture)}


def _data_uri(picture: Image.Image) -> str:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii")


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>@TITLE@</title>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<style>
body { background: #18181c; color: #ebebeb; font: 16px system-ui, sans-serif; max-width: 60rem; margin: 2rem auto }
section { margin: 2rem 0 }
.row { display: flex; gap: 1.5rem; flex-wrap: wrap; align-items: flex-start }
.grid { display: grid; gap: 2px }
.grid i { width: 2.4rem; aspect-ratio: 1; display: grid; place-items: center; background: #34343c }
.grid b { border-radius: 50%; background: #9696a5 }
.words { line-height: 1.9; white-space: pre-wrap }
.words i { font-style: normal }
.words .masked { border-radius: 3px; color: transparent }
.fresh { outline: 2px solid #ffd23c }
img { image-rendering: pixelated; width: 20rem }
input { width: 20rem }
</style></head><body><h1>@TITLE@</h1>
<script>
const stages = @DATA@;
const make = (name, parent, kind = "") => {
  const element = document.createElement(name);
  element.className = kind;
  parent.append(element);
  return element;
};
for (const stage of stages) {
  const section = make("section", document.body), caption = make("p", section), slider = make("input", section);
  const row = make("div", section, "row"), canvas = make("div", row, stage.columns ? "grid" : "words");
  if (stage.columns) canvas.style.gridTemplateColumns = `repeat(${stage.columns}, auto)`;
  const cells = stage.labels.map(() => make("i", canvas));
  if (stage.picture) make("img", row).src = stage.picture;
  slider.type = "range";
  slider.max = stage.moments.length - 1;
  slider.value = 0;
  const draw = (cell, label, color, [there, sure, fresh]) => {
    cell.className = (fresh ? "fresh" : "") + (there ? "" : " masked");
    cell.title = `${there ? label : "masked"}, confidence ${sure}`;
    if (stage.columns) {
      cell.style.background = there ? color : "";
      cell.replaceChildren();
      if (there) return;
      const dot = make("b", cell);
      dot.style.width = dot.style.height = `${Math.sqrt(sure) * 90}%`;
    } else {
      cell.textContent = label;
      cell.style.background = there ? "" : `rgba(150, 150, 165, ${0.2 + 0.8 * sure})`;
    }
  };
  const show = () => {
    const moment = stage.moments[slider.value], done = moment.filter(cell => cell[0]).length;
    const what = stage.columns ? "picture" : "words";
    caption.textContent = `${what}: denoise step ${slider.value}, ${done} of ${moment.length} committed`;
    moment.forEach((state, k) => draw(cells[k], stage.labels[k], stage.columns && stage.colors[k], state));
  };
  slider.oninput = show;
  show();
  const timer = setInterval(() => {
    if (+slider.value >= +slider.max) return clearInterval(timer);
    slider.value++;
    show();
  }, 300);
  slider.onpointerdown = () => clearInterval(timer);
}
</script></body></html>
"""
