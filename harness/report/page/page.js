(() => {
  "use strict";
  const root = document.documentElement;
  const dashes = ["solid", "dash", "dot", "dashdot", "longdash"];
  const places = [...document.querySelectorAll(".plot")];
  const drawn = new Set();
  let charts = new Map();
  let numbers = new Float32Array();

  const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const colourOf = (index) => colour(`c${index % 8}`);
  // In plotly's texts a < may begin markup.
  const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  const faint = (text) => `${text}40`;

  async function unpacked(id) {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }

  const values = (part) => (Array.isArray(part) ? part.map(plain) : numbers.subarray(part.begin, part.begin + part.count));

  function trace(one) {
    const paint = colourOf(one.colour);
    const usual = { name: plain(one.name), x: values(one.x), y: values(one.y), visible: one.hidden ? "legendonly" : true, legendgroup: `${one.name} ${one.colour}` };
    switch (one.mark) {
      case "band":
        return { ...usual, type: "scatter", mode: "lines", fill: "toself", fillcolor: faint(paint), line: { width: 0 },
          hoverinfo: "skip", showlegend: false };
      case "points":
        return { ...usual, type: "scatter", mode: "markers", marker: { color: paint, size: 7, symbol: "x-thin-open" } };
      case "bars":
        return { ...usual, type: "bar", marker: { color: paint }, opacity: 0.75 };
      case "stacked":
        return { ...usual, x: usual.y, y: usual.x, type: "bar", orientation: "h", marker: { color: paint,
          pattern: { shape: ["", "/", "\\", "x", "-", "|", "+", "."][one.colour % 8], fgopacity: 0.5 } } };
      default:
        return { ...usual, type: "scatter", mode: usual.x.length === 1 ? "markers" : "lines", connectgaps: false,
          line: { color: paint, width: 1.6, dash: dashes[one.colour % dashes.length] }, marker: { color: paint } };
    }
  }

  function shapes(chart) {
    return chart.spans.map(([x0, x1, what]) => (x0 === x1
      ? { type: "line", x0, x1, yref: "paper", y0: 0, y1: 1, line: { color: colour("text"), width: 1, dash: "dot" },
        label: { text: what, textposition: "end", textangle: -90, xanchor: "right", font: { color: colour("text") } } }
      : { type: "rect", x0, x1, yref: "paper", y0: 0, y1: 1, line: { width: 0 }, layer: "below",
        fillcolor: colour(what) }));
  }

  function layout(chart) {
    const text = colour("text"), line = colour("line"), lying = chart.traces.some((one) => one.mark === "stacked");
    const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true, title: { standoff: 8 } };
    const x = { ...axis, title: { ...axis.title, text: lying ? chart.y : chart.x } };
    const y = { ...axis, title: { ...axis.title, text: lying ? "" : chart.y }, rangemode: "tozero" };
    if (chart.highest !== null) y.range = [0, 1.1 * chart.highest];
    if (chart.share) (lying ? x : y).tickformat = ".0%";
    return {
      paper_bgcolor: colour("page"), plot_bgcolor: colour("page"), font: { color: text, size: 12, family: "system-ui, sans-serif" },
      margin: { l: 50, r: 12, t: 30, b: 40 }, xaxis: x, yaxis: y, shapes: shapes(chart), dragmode: "pan",
      barmode: lying ? "stack" : "overlay", hovermode: lying ? "closest" : "x unified",
      hoverlabel: { bgcolor: colour("box"), font: { color: text } },
      legend: { orientation: "h", y: 1, yanchor: "bottom", x: 0 }, showlegend: chart.traces.length > 1,
    };
  }

  function draw(place) {
    const chart = charts.get(place.dataset.chart);
    if (!chart || drawn.has(place)) return;
    drawn.add(place);
    Plotly.newPlot(place, chart.traces.map(trace), layout(chart),
      { responsive: true, displaylogo: false, displayModeBar: "hover",
        modeBarButtons: [["pan2d", "zoom2d", "zoomIn2d", "zoomOut2d", "resetScale2d"], ["toImage"]] });
    if (chart.time) place.on("plotly_relayout", (change) => follow(place, change));
  }

  // All charts over time show the same stretch.
  let following = false;
  let stretch = null;
  function follow(leader, change) {
    if (following) return;
    const from = change["xaxis.range[0]"], to = change["xaxis.range[1]"];
    if (from === undefined && !change["xaxis.autorange"]) return;
    stretch = from === undefined ? null : [from, to];
    following = true;
    Promise.all([...drawn].filter((place) => place !== leader && charts.get(place.dataset.chart).time)
      .map((place) => Plotly.relayout(place, ranged()))).finally(() => { following = false; });
  }
  const ranged = () => (stretch ? { "xaxis.range": [...stretch] } : { "xaxis.autorange": true });

  function redraw() {
    for (const place of drawn) {
      const chart = charts.get(place.dataset.chart);
      const shown = place.layout.xaxis.autorange ? null : [...place.layout.xaxis.range];
      const fresh = layout(chart);
      if (shown) fresh.xaxis.range = shown;
      Plotly.react(place, chart.traces.map(trace), fresh);
    }
  }

  function say(text) { document.getElementById("announcement").textContent = text; }

  function onKey(event) {
    const place = event.currentTarget;
    if (event.target !== place || event.ctrlKey || event.metaKey || event.altKey || !drawn.has(place)) return;
    const [from, to] = place.layout.xaxis.range, width = to - from;
    const moved = { ArrowLeft: [-0.2, -0.2], ArrowRight: [0.2, 0.2], "+": [0.2, -0.2], "=": [0.2, -0.2], "-": [-0.33, 0.33] }[event.key];
    if (event.key === "0") Plotly.relayout(place, { "xaxis.autorange": true });
    else if (moved) Plotly.relayout(place, { "xaxis.range[0]": from + moved[0] * width, "xaxis.range[1]": to + moved[1] * width });
    else return;
    event.preventDefault();
    const [low, high] = place.layout.xaxis.range;
    say(`From ${low.toPrecision(4)} to ${high.toPrecision(4)} ${charts.get(place.dataset.chart).x}`);
  }

  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("pplcnet-bench-theme", root.dataset.theme); } catch (error) { /* it isn't remembered */ }
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

  async function begin() {
    if (!places.length) return;
    if (!("DecompressionStream" in window)) {
      for (const place of places) place.textContent = "This browser can't unpack the chart; its figures are in the table.";
      return;
    }
    const [described, floats, code] = await Promise.all(["charts", "arrays", "plotly"].map(unpacked));
    charts = new Map(JSON.parse(new TextDecoder().decode(described)).map((chart) => [chart.key, chart]));
    numbers = new Float32Array(floats);
    const script = document.createElement("script");
    script.textContent = new TextDecoder().decode(code);
    document.head.append(script);
    for (const place of places) place.addEventListener("keydown", onKey);
    const seen = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting || drawn.has(target)) continue;
        draw(target);
        if (stretch && charts.get(target.dataset.chart).time) Plotly.relayout(target, ranged());
      }
    }, { rootMargin: "600px" });
    for (const place of places) seen.observe(place);
    addEventListener("beforeprint", () => places.forEach(draw));
    root.dataset.charts = "ready";
  }
  begin();
})();
