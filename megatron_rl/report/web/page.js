"use strict";
// Draws the charts and the samples of a run's page from the JSON in #data. It loads nothing.
(() => {
  const DATA = JSON.parse(document.getElementById("data").textContent);
  const COLOURS = ["#3b82f6", "#f97316", "#10b981", "#e11d8f", "#8b5cf6", "#ca8a04", "#64748b", "#06b6d4", "#ef4444", "#84cc16", "#a16207", "#94a3b8"];
  const MARKS = { reset: ["#6b7280", [2, 4]], attempt: ["#ef4444", []], stage: ["#10b981", [6, 4]] };
  const AXES = { step: "step", samples: "samples generated", tokens: "tokens trained on", hours: "hours of training" };
  const HEIGHT = 230, NEAR_PIXELS = 5, SAMPLES_SHOWN = 20, MANY_MARKS = 100;
  const view = { x: "step", smooth: 0, log: false, marks: true, seeds: false, hidden: new Set() };
  const charts = [];
  const isComparison = DATA.runs.length > 1;
  const $ = (id) => document.getElementById(id);

  function make(tag, attributes = {}, ...children) {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...children);
    return element;
  }

  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function written(value) {
    if (value == null) return "–";
    const size = Math.abs(value);
    if (size !== 0 && (size >= 1e5 || size < 1e-3)) return value.toExponential(2).replace("e+", "e");
    return String(+value.toPrecision(4));
  }

  function short(value) {
    const size = Math.abs(value);
    for (const [unit, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
      if (size >= unit) return +(value / unit).toPrecision(4) + letter;
    return size !== 0 && size < 1e-3 ? (+value.toPrecision(3)).toExponential() : String(+value.toPrecision(4));
  }

  // The place of a step on the chosen axis, between the neighbours that are known.
  function placed(run, step) {
    const steps = run.steps.step, places = run.steps[view.x];
    if (view.x === "step" || !steps.length) return step;
    let low = 0, high = steps.length - 1;
    if (step <= steps[0]) return places[0] * Math.max(step, 0) / steps[0];
    if (step >= steps[high]) return places[high];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (steps[middle] <= step) low = middle; else high = middle;
    }
    return places[low] + (places[high] - places[low]) * (step - steps[low]) / (steps[high] - steps[low]);
  }

  // [x, y] of a metric of a run; null where it has none.
  function curve(run, metric) {
    for (const part of [run.steps, run.validations])
      if (part.metrics[metric])
        return [part === run.steps ? run.steps[view.x] : part.step.map((step) => placed(run, step)), part.metrics[metric]];
    return null;
  }

  function smoothed(values) {
    const reach = Math.round(view.smooth * values.length / 400);
    if (!reach) return values;
    const sums = [0], counts = [0];
    values.forEach((value, i) => {
      sums.push(sums[i] + (value ?? 0));
      counts.push(counts[i] + (value != null));
    });
    return values.map((value, i) => {
      const from = Math.max(0, i - reach), to = Math.min(values.length, i + reach + 1);
      return value == null ? null : (sums[to] - sums[from]) / (counts[to] - counts[from]);
    });
  }

  const domainsOf = (panel) => [...new Set(DATA.runs.flatMap((run) => run.domains))].filter((domain) =>
    DATA.runs.some((run) => panel.curves.some(([metric]) => curve(run, `${metric}/${domain}`))));

  // What a panel offers to choose from: several domains, and in a comparison one of several curves.
  function choicesOf(panel) {
    const domains = panel.per_domain ? domainsOf(panel) : [];
    if (isComparison) {
      const names = panel.curves.flatMap(([metric, label]) =>
        [[metric, label], ...domains.map((domain) => [`${metric}/${domain}`, `${label}, ${domain}`])]);
      return names.filter(([metric]) => DATA.runs.some((run) => curve(run, metric)));
    }
    if (domains.length < 2) return [];
    const single = panel.curves.map(([, label]) => [`each:${label}`, panel.curves.length > 1 ? `${label}, each domain` : "each domain"]);
    return [...(panel.curves.length > 1 ? [["all", "all domains"], ...single] : [...single, ["all", "all domains"]]), ...domains.map((domain) => [domain, domain])];
  }

  // The curves of a panel: {label, x, y, colour, width}.
  function linesOf(panel, choice) {
    const lines = (run, metric, label, index, width = 1.8) => {
      const points = curve(run, metric);
      return points ? [{ label, x: points[0], y: points[1], colour: COLOURS[index % COLOURS.length], width }] : [];
    };
    if (isComparison) {
      const metric = choice || (choicesOf(panel)[0] || panel.curves[0])[0];
      if (view.seeds) return bySeeds(metric);
      return DATA.runs.flatMap((run, i) => (view.hidden.has(i) ? [] : lines(run, metric, run.label, i)));
    }
    const run = DATA.runs[0], [kind, which] = (choice || "all").split(/:(.*)/s);
    if (kind !== "each") return panel.curves.flatMap(([metric, label], i) => lines(run, kind === "all" ? metric : `${metric}/${kind}`, label, i));
    const [metric, label] = panel.curves.find(([, label]) => label === which);
    return [
      ...lines(run, metric, panel.curves.length > 1 ? label : "all", 0, 2.4),
      ...domainsOf(panel).flatMap((domain, i) => lines(run, `${metric}/${domain}`, domain, i + 1, 1.3)),
    ];
  }

  // Runs of one recipe and several seeds as their mean, with the range between the lowest and the highest.
  function bySeeds(metric) {
    const groups = new Map();
    DATA.runs.forEach((run, i) => {
      if (!view.hidden.has(i) && curve(run, metric)) groups.set(run.group, [...(groups.get(run.group) || []), run]);
    });
    return [...groups.values()].flatMap((runs, index) => {
      const curves = runs.map((run) => curve(run, metric)), x = curves[0][0];
      const columns = curves.map(([places, values]) => x.map((place) => between(places, values, place)));
      const at = (pick) => x.map((_, i) => {
        const values = columns.map((column) => column[i]).filter((value) => value != null);
        return values.length ? pick(values) : null;
      });
      const colour = COLOURS[index % COLOURS.length];
      const mean = { label: `${runs[0].group_label} (${runs.length})`, x, y: at((v) => v.reduce((a, b) => a + b) / v.length), colour, width: 2.2 };
      if (runs.length < 2) return [mean];
      const edge = { x, colour, width: 0, faint: true };
      return [mean, { ...edge, label: "highest", y: at((v) => Math.max(...v)), band: true }, { ...edge, label: "lowest", y: at((v) => Math.min(...v)) }];
    });
  }

  function between(places, values, place) {
    let high = places.findIndex((other) => other >= place);
    if (high < 0 || values[high] == null) return null;
    if (high === 0 || places[high] === place || values[high - 1] == null) return places[high] === place ? values[high] : null;
    const share = (place - places[high - 1]) / (places[high] - places[high - 1]);
    return values[high - 1] + share * (values[high] - values[high - 1]);
  }

  // What uPlot is given: aligned data, series and bands.
  function plotted(panel, choice, isLog) {
    const fit = (y) => (isLog ? y.map((value) => (value > 0 ? value : null)) : y);
    const tables = [], series = [{ label: AXES[view.x], value: (_, v) => written(v) }], bands = [];
    const stacked = panel.stacked && !isComparison;
    const lines = stacked ? stackOf(panel) : linesOf(panel, choice);
    for (const line of lines) {
      const isSparse = line.x.length < 60;
      const smooth = stacked || line.faint ? line.y : smoothed(line.y);
      if (smooth !== line.y && !line.faint) {
        tables.push([line.x, fit(line.y)]);
        series.push({ label: line.label, class: "faint", stroke: line.colour + "50", width: 0.7, points: { show: false }, spanGaps: true });
      }
      if (line.band) bands.push({ series: [series.length, series.length + 1], fill: line.colour + "28" });
      tables.push([line.x, fit(smooth)]);
      series.push({
        label: line.label, stroke: line.colour, width: line.width, spanGaps: true, class: line.faint ? "faint" : null,
        fill: stacked ? line.colour : undefined,
        points: { show: isSparse && !stacked && !line.faint, size: 5, fill: line.colour },
        value: (u, v, s, i) => written(line.own && i != null ? line.own[i] : v),
      });
    }
    return { data: tables.length ? uPlot.join(tables) : [[], []], series, bands };
  }

  // The phases of a step on top of each other, the highest first, each with its own height for the legend.
  function stackOf(panel) {
    const steps = DATA.runs[0].steps, x = steps[view.x];
    let below = x.map(() => 0);
    const layers = [];
    panel.curves.forEach(([metric, label], i) => {
      const own = steps.metrics[metric];
      if (!own) return;
      below = below.map((height, k) => height + Math.max(own[k] ?? 0, 0));
      layers.unshift({ label, x, y: below, own, colour: COLOURS[i % COLOURS.length], width: 0 });
    });
    return layers;
  }

  function clipped(u, paint) {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    paint(ctx, bbox, devicePixelRatio);
    ctx.restore();
  }

  function stroke(ctx, fromX, fromY, toX, toY) {
    ctx.beginPath();
    ctx.moveTo(fromX, fromY);
    ctx.lineTo(toX, toY);
    ctx.stroke();
  }

  // Marks below the curves: spans of the length term, and a line for each event; short ones where there are many.
  function drawMarks(u) {
    if (!view.marks || isComparison) return;
    const run = DATA.runs[0], isDense = run.marks.length > MANY_MARKS;
    clipped(u, (ctx, bbox, scale) => {
      const at = (step) => Math.round(u.valToPos(placed(run, step), "x", true));
      ctx.fillStyle = "#eab30830";
      for (const [first, last] of run.spans) ctx.fillRect(at(first - 0.5), bbox.top, Math.max(at(last + 0.5) - at(first - 0.5), 1), bbox.height);
      ctx.lineWidth = scale;
      for (const [step, kind] of run.marks) {
        const bottom = bbox.top + bbox.height;
        ctx.strokeStyle = MARKS[kind][0];
        ctx.globalAlpha = isDense ? 0.5 : 0.7;
        ctx.setLineDash(isDense ? [] : MARKS[kind][1]);
        stroke(ctx, at(step), isDense && kind === "reset" ? bottom - 10 * scale : bbox.top, at(step), bottom);
      }
    });
  }

  // Lines that a panel's values are read against.
  function drawLimits(u, panel) {
    clipped(u, (ctx, bbox, scale) => {
      ctx.setLineDash([8, 5]);
      Object.assign(ctx, { strokeStyle: "#ef4444", fillStyle: ink("--soft"), lineWidth: scale, textAlign: "left", font: `${11 * scale}px system-ui, sans-serif` });
      for (const [value, label] of panel.lines) {
        const at = Math.round(u.valToPos(value, "y", true)), isHigh = at - bbox.top < 16 * scale;
        stroke(ctx, bbox.left, at, bbox.left + bbox.width, at);
        ctx.textBaseline = isHigh ? "top" : "bottom";
        ctx.fillText(label, bbox.left + 4 * scale, at + (isHigh ? 3 : -3) * scale);
      }
    });
  }

  // Says below a chart what is marked near the cursor.
  function tellMark(u, told) {
    const run = DATA.runs[0], at = u.cursor.left;
    const near = isComparison || at < 0 || !view.marks ? [] : run.marks.filter(([step]) =>
      Math.abs(u.valToPos(placed(run, step), "x") - at) <= NEAR_PIXELS);
    told.textContent = near.slice(0, 2).map(([step, , text]) => `step ${step}: ${text}`).join("; ") + (near.length > 2 ? `; and ${near.length - 2} more` : "");
  }

  function range(panel, isLog) {
    return (u, low, high) => {
      if (low == null) return isLog ? [0.1, 1] : [0, 1];
      if (isLog) return uPlot.rangeLog(low, high, 10, true); // between other ends than powers of ten it never stops
      if (panel.fraction && !zoomed(u)) return [Math.min(0, low), Math.max(1, high)];
      const padding = Math.max((high - low) * 0.05, Math.max(Math.abs(high), Math.abs(low)) * 1e-4, 1e-12);
      return [low >= 0 && !zoomed(u) ? 0 : low - padding, high + padding];
    };
  }

  // Ticks of a logarithmic axis: powers of ten, with their double and fivefold where those are few. uPlot's own add up
  // rounded steps, and do not end where a step rounds to nothing.
  function logSplits(u, axis, low, high) {
    const powers = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) powers.push(power);
    const factors = powers.length > 3 ? [1] : [1, 2, 5];
    return powers.flatMap((power) => factors.map((factor) => factor * 10 ** power)).filter((value) => value >= low && value <= high);
  }

  // A run of one point, or of points that differ by rounding only, has an axis too.
  function span(u, low, high) {
    if (low == null) return [0, 1];
    const size = Math.max(Math.abs(low), Math.abs(high));
    return high - low > size * 1e-6 ? [low, high] : [low - (size || 1) / 2, high + (size || 1) / 2];
  }

  const zoomed = (u) => u.data[0].length > 1 && u.scales.x.min != null && (u.scales.x.min > u.data[0][0] || u.scales.x.max < u.data[0][u.data[0].length - 1]);

  function draw(chart) {
    const { panel, place, told } = chart;
    const choice = chart.select && chart.select.value;
    let isLog = panel.log !== view.log;
    let { data, series, bands } = plotted(panel, choice, isLog);
    if (isLog && !data.slice(1).some((y) => y.some((value) => value > 0))) {
      isLog = false;
      ({ data, series, bands } = plotted(panel, choice, false));
    }
    if (chart.plot) chart.plot.destroy();
    const axis = { stroke: ink("--soft"), grid: { stroke: ink("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const format = (_, values) => values.map((value) => (value == null ? "" : short(value)));
    chart.plot = new uPlot({
      width: Math.max(place.clientWidth, 200), height: HEIGHT, series, bands,
      scales: { x: { time: false, range: span }, y: { distr: isLog ? 3 : 1, range: range(panel, isLog) } },
      axes: [{ ...axis, size: 26, values: format }, { ...axis, size: 46, values: format, ...(isLog ? { splits: logSplits, filter: null } : {}) }],
      cursor: { sync: { key: "run", scales: ["x", null] }, drag: { x: true, y: false } },
      hooks: { drawAxes: [drawMarks], draw: [(u) => drawLimits(u, panel)], setCursor: [(u) => tellMark(u, told)], setSelect: [(u) => zoomTogether(u)] },
    }, data, place);
    if (zoom && data[0].length) chart.plot.setScale("x", zoom);
  }

  // A span that is dragged over in one chart is shown in all; a double click shows all again.
  let zoom = null;
  function zoomTogether(u) {
    if (u.select.width < 2) return;
    zoom = { min: u.posToVal(u.select.left, "x"), max: u.posToVal(u.select.left + u.select.width, "x") };
    for (const { plot } of charts) plot.setScale("x", zoom);
  }

  function drawAll() {
    charts.forEach(draw);
  }

  function showAll() {
    zoom = null;
    drawAll();
  }

  function buildCharts() {
    for (const panel of DATA.panels) {
      if (!DATA.runs.some((run) => panel.curves.some(([metric]) => curve(run, metric)))) continue;
      const choices = choicesOf(panel);
      const select = choices.length > 1 ? make("select", { ariaLabel: `curves of ${panel.title}` }, ...choices.map(([value, text]) => make("option", { value, textContent: text }))) : null;
      const place = make("div"), told = make("div", { className: "soft told" });
      const figure = make("figure", { className: "card" }, make("header", {}, make("h3", { textContent: panel.title }), ...(select ? [select] : [])),
        make("figcaption", { textContent: panel.caption }), place, told);
      $(`plots-${panel.section}`).append(figure);
      const chart = { panel, place, told, select };
      if (select) select.onchange = () => draw(chart);
      place.addEventListener("dblclick", showAll);
      charts.push(chart);
    }
    for (const section of document.querySelectorAll(".plots")) if (!section.children.length) section.parentElement.remove();
    drawAll();
    let width = document.body.clientWidth;
    addEventListener("resize", () => {
      if (document.body.clientWidth === width) return;
      width = document.body.clientWidth;
      for (const { plot, place } of charts) plot.setSize({ width: Math.max(place.clientWidth, 200), height: HEIGHT });
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  }

  function buildControls() {
    const axis = make("select", {}, ...Object.entries(AXES).map(([value, text]) => make("option", { value, textContent: text })));
    axis.onchange = () => { view.x = axis.value; showAll(); };
    const smooth = make("input", { type: "range", min: 0, max: 40, value: DATA.smooth });
    view.smooth = DATA.smooth;
    smooth.oninput = () => { view.smooth = +smooth.value; drawAll(); };
    const box = (key, text) => {
      const input = make("input", { type: "checkbox", checked: view[key] });
      input.onchange = () => { view[key] = input.checked; drawAll(); };
      return make("label", {}, input, text);
    };
    const all = make("button", { type: "button", textContent: "whole run", onclick: showAll });
    $("controls").append(make("label", {}, "along", axis), make("label", {}, "smoothing", smooth), box("log", "log / linear swapped"));
    if (!isComparison) $("controls").append(box("marks", "marks"));
    const groups = DATA.runs.map((run) => run.group);
    if (new Set(groups).size < groups.length) {
      view.seeds = true;
      $("controls").append(box("seeds", "mean and range over seeds"));
    }
    if (isComparison) DATA.runs.forEach((run, i) => {
      const input = make("input", { type: "checkbox", checked: true });
      input.onchange = () => { if (input.checked) view.hidden.delete(i); else view.hidden.add(i); drawAll(); };
      const dot = make("span", { className: "dot" });
      dot.style.background = COLOURS[i % COLOURS.length];
      $("controls").append(make("label", {}, input, dot, run.label));
    });
    $("controls").append(all);
  }

  const FILTERS = {
    newest: ["newest first", (one) => !one.held_out, (a, b) => b.step - a.step],
    best: ["best", () => true, (a, b) => b.reward - a.reward || b.step - a.step],
    worst: ["worst", () => true, (a, b) => a.reward - b.reward || b.step - a.step],
    validation: ["of validations", (one) => one.held_out, (a, b) => b.step - a.step],
    changed: ["verdict changed", (one) => one.earlier != null, (a, b) => b.step - a.step],
    longest: ["longest", () => true, (a, b) => b.length - a.length],
    truncated: ["cut off", (one) => one.truncated, (a, b) => b.step - a.step],
    unjudged: ["not judged", (one) => one.outcome !== "judged", (a, b) => b.step - a.step],
  };

  function card(one) {
    const verdict = one.outcome !== "judged" ? ["unsure", one.outcome] : [one.reward >= 1 ? "right" : "wrong", `reward ${written(one.reward)}`];
    const facts = [`step ${one.step}`, one.domain, one.prompt_id, `${one.length} tokens${one.truncated ? ", cut off" : ""}`,
      one.held_out ? "validation" : one.advantage == null ? "group dropped" : `advantage ${written(one.advantage)}`, `policy ${one.policy_version}`, one.detail];
    const head = make("header", {}, make("b", { className: verdict[0], textContent: verdict[1] }), ...facts.filter(Boolean).map((text) => make("span", { className: "soft", textContent: text })));
    const body = [head];
    if (one.earlier != null) body.push(make("p", { className: "soft", textContent: `An earlier policy, at step ${one.earlier[0]}, had reward ${written(one.earlier[1])}.` }));
    body.push(make("details", {}, make("summary", { textContent: "prompt" }), make("pre", { textContent: one.prompt })));
    body.push(make("pre", { textContent: one.response }), make("p", { className: "soft", textContent: `reference answer: ${one.answer}` }));
    return make("article", { className: "card sample" }, ...body);
  }

  function buildSamples() {
    const all = DATA.samples;
    if (!all.length) return;
    let shown = SAMPLES_SHOWN;
    const options = (pairs) => pairs.map(([value, textContent]) => make("option", { value, textContent }));
    const order = make("select", { ariaLabel: "which samples" }, ...options(Object.entries(FILTERS).map(([value, [text]]) => [value, text])));
    const domain = make("select", { ariaLabel: "domain" }, ...options([["", "all domains"], ...[...new Set(all.map((one) => one.domain))].sort().map((name) => [name, name])]));
    const search = make("input", { type: "search", placeholder: "search prompts and responses" });
    const count = make("span", { className: "soft" }), list = make("div"), more = make("button", { type: "button", textContent: "more" });
    function list_samples() {
      const [, keeps, sorts] = FILTERS[order.value], wanted = search.value.toLowerCase();
      const found = all.filter((one) => keeps(one) && (!domain.value || one.domain === domain.value)
        && (!wanted || [one.prompt, one.response, one.prompt_id, one.answer, one.detail].some((text) => text.toLowerCase().includes(wanted)))).sort(sorts);
      count.textContent = `${found.length} of ${all.length}`;
      list.replaceChildren(...found.slice(0, shown).map(card));
      more.hidden = found.length <= shown;
    }
    const restart = () => { shown = SAMPLES_SHOWN; list_samples(); };
    order.onchange = domain.onchange = search.oninput = restart;
    more.onclick = () => { shown += SAMPLES_SHOWN; list_samples(); };
    $("samples").append(make("div", { className: "bar" }, order, domain, search, count), list, more);
    list_samples();
  }

  buildControls();
  buildCharts();
  buildSamples();
  document.documentElement.dataset.ready = "yes";
})();
