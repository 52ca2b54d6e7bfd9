// What was copied, and what still shared, over time: a line for each process, or one for all.

// Round distances of an axis' lines: 1, 2 or 5 times a power of ten, of 1024 for bytes.
function stepOf(span, lines, isBytes) {
  let unit = 1;
  if (isBytes) while (span / unit >= 1024) unit *= 1024;
  const least = span / unit / lines;
  const power = 10 ** Math.floor(Math.log10(least));
  return unit * power * ([1, 2, 5].find((each) => each * power >= least) || 10);
}

const MEASURES = [
  { name: "Copied", of: (curve) => curve.copied, text: bytesText, isBytes: true },
  { name: "Per second", of: (curve) => curve.rate(), text: (value) => `${bytesText(value)}/s`, isBytes: true },
  { name: "Still shared", of: (curve) => curve.shared, text: (value) => percentText(value, 0), isBytes: false },
];

const programOf = (process) => process.title || process.comm;

// By name, a color of its own for each of the programs that copied most, if there are several.
function programColors(report) {
  const copied = new Map();
  for (const process of report.processes) {
    const points = process.curve ? process.curve.copied : [];
    if (points.length > 0) copied.set(programOf(process), (copied.get(programOf(process)) || 0) + points[points.length - 1][1]);
  }
  const least = Math.max(...copied.values()) / 100;
  const names = [...copied.keys()].filter((name) => copied.get(name) > least).sort((a, b) => copied.get(b) - copied.get(a));
  return new Map(names.length < 2 ? [] : names.slice(0, PATTERN_COLORS.length - 1).map((name, i) => [name, PATTERN_COLORS[i]]));
}

class CurveChart {
  static HEIGHT = 300;

  constructor(report, canvas) {
    this.report = report;
    this.canvas = canvas;
    this.colors = programColors(report);
    this.measure = MEASURES[0];
    this.isTogether = false;
    for (const event of ["search", "theme", "choose", "resize"]) page.on(event, () => this.draw());
    hover(canvas, (event, x, y) => this.point(event, x, y));
  }

  lines() {
    if (this.isTogether) return [{ process: null, points: this.measure.of(this.report.curve) }];
    return this.report.processes
      .filter((process) => process.curve)
      .map((process) => ({ process, points: this.measure.of(process.curve) }))
      .filter((line) => line.points.length > 0);
  }

  draw() {
    const { context, width } = fit(this.canvas, CurveChart.HEIGHT);
    const lines = this.lines();
    const left = 66;
    const right = 12;
    const bottom = CurveChart.HEIGHT - 26;
    const span = this.report.run.duration_s || 1;
    let most = this.measure.isBytes ? 0 : 1;
    for (const line of lines) for (const point of line.points) most = Math.max(most, point[1]);
    most = (most || 1) * (this.measure.isBytes ? 1.05 : 1);
    const x = (at) => left + (Math.min(at, span) / span) * (width - left - right);
    const y = (value) => bottom - (value / most) * (bottom - 12);
    this.drawn = { lines, x, y };

    context.fillStyle = color("--muted");
    context.strokeStyle = color("--line");
    context.textAlign = "right";
    context.textBaseline = "middle";
    const up = this.measure.isBytes ? stepOf(most, 4, true) : 0.25;
    for (let value = 0; value <= most * 1.0001; value += up) {
      context.fillText(this.measure.text(value), left - 8, y(value));
      context.beginPath();
      context.moveTo(left, Math.round(y(value)) + 0.5);
      context.lineTo(width - right, Math.round(y(value)) + 0.5);
      context.stroke();
    }
    context.textBaseline = "top";
    context.textAlign = "center";
    const along = stepOf(span, width / 110, false);
    for (let at = 0; at <= span * 0.98; at += along) {
      context.fillText(`${Number(at.toPrecision(6))} s`, x(at), bottom + 8);
    }
    if (lines.length === 0 || lines.every((line) => line.points.length === 0)) {
      context.fillText("Nothing is known of it.", (left + width) / 2, bottom / 2);
      return;
    }

    const strong = (line) => page.chosen ? line.process === page.chosen : page.query === "" || !line.process || this.report.isFound(line.process);
    const usual = Math.min(0.9, Math.max(0.06, 20 / lines.length));
    for (const isStrong of [false, true]) {
      for (const line of lines) {
        if (strong(line) !== isStrong) continue;
        const isSole = lines.length === 1 || line.process === page.chosen;
        context.globalAlpha = !isStrong ? Math.min(0.13, usual) : isSole ? 1 : usual;
        context.strokeStyle = !line.process || this.colors.size === 0 ? color(this.measure.isBytes ? "--copied" : "--shared")
          : this.colors.get(programOf(line.process)) || color("--muted");
        context.lineWidth = isSole ? 2.2 : 1.4;
        context.beginPath();
        line.points.forEach(([at, value], i) => (i === 0 ? context.moveTo(x(at), y(value)) : context.lineTo(x(at), y(value))));
        context.stroke();
        if (isSole && this.measure.isBytes) {
          context.lineTo(x(line.points[line.points.length - 1][0]), bottom);
          context.lineTo(x(line.points[0][0]), bottom);
          context.globalAlpha = 0.12;
          context.fillStyle = context.strokeStyle;
          context.fill();
        }
      }
    }
    context.globalAlpha = 1;
  }

  // The line next to the pointer.
  point(event, px, py) {
    const { lines, x, y } = this.drawn;
    let best = null;
    for (const line of lines) {
      for (let i = 0; i < line.points.length; ++i) {
        const [at, value] = line.points[i];
        let cx = x(at);
        let cy = y(value);
        if (i + 1 < line.points.length) {
          const nextX = x(line.points[i + 1][0]);
          if (px > cx && nextX > cx) {
            const part = Math.min(1, (px - cx) / (nextX - cx));
            cy += part * (y(line.points[i + 1][1]) - cy);
            cx += part * (nextX - cx);
          }
        }
        const distance = Math.hypot(cx - px, cy - py);
        if (distance < (best ? best.distance : 40)) best = { distance, line, i };
      }
    }
    if (!best) return undefined;
    const { process } = best.line;
    const [at, value] = best.line.points[best.i];
    showTooltip(event, process ? nameOf(process) : "All processes", `${this.measure.text(value)} at ${secondsText(at)}`);
    return process ? () => page.choose(process) : null;
  }
}

function showCurves(report) {
  const canvas = element("canvas", { role: "img", "aria-label": "Copied memory over time" });
  const measure = choice("Measure", MEASURES.map((each) => each.name), 0, (i) => {
    chart.measure = MEASURES[i];
    chart.draw();
  });
  const scope = choice("Scope", ["Each process", "All together"], 0, (i) => {
    chart.isTogether = i === 1;
    chart.draw();
  });
  const panel = section("curves", "Over time", measure, scope);
  const chart = new CurveChart(report, canvas);
  panel.append(canvas);
  if (chart.colors.size > 0) {
    panel.append(element("div", { class: "key" }, ...[...chart.colors].map(([name, paint]) => {
      const mark = element("i");
      mark.style.background = paint;
      return element("span", {}, mark, name);
    })));
  }
  if (report.processes.length > report.detailed) {
    panel.append(element("p", { class: "hint" }, `Lines of the ${countText(report.detailed)} processes that copied most; in the sum are all.`));
  }
  chart.draw();
}
