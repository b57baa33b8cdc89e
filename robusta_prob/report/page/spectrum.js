// The three panels of one object: spectrum with model and band, residual z, robust weight.

const LINEAR = 3, STEEP = 15; // z axis: asinh beyond LINEAR, where some |z| is beyond STEEP
const MANY = 1000; // pixels, which are about as many as those of the screen
const APART = 13; // [px] between names of lines

function makeSpectrum(doc, page, lines) {
  const model = (name) => doc.get_model_by_name(name);
  const [steps, curve, bands, areas, windows, marks, beyond] =
    ["steps", "model", "bands", "areas", "windows", "marks", "beyond"].map(model);
  const x = model("pixels"), ranges = { flux: model("flux-range"), z: model("z-range"), weight: model("weight-range") };
  let shown = null, grid = null, top = 1, set = lines, ticked = "";

  function axes(run) {
    if (grid === run.grid) return;
    grid = run.grid;
    const edges = borders(grid), [start, end] = [edges[0], edges[grid.length]];
    x.setv({ start, end, reset_start: start, reset_end: end });
    model("flux").left[0].axis_label = run.fluxName;
    model("weight").below[0].axis_label = run.gridName;
  }

  function scaleOfZ(z, reach) {
    let largest = 0;
    for (const value of z) if (Math.abs(value) > largest) largest = Math.abs(value);
    const steep = largest > STEEP, at = steep ? (v) => LINEAR * Math.asinh(v / LINEAR) : (v) => v;
    const end = at(Math.max(1.12 * largest, 5));
    ranges.z.setv({ start: -end, end, reset_start: -end, reset_end: end });
    const far = steep ? 10 ** Math.floor(Math.log10(largest)) : largest > 9 ? 10 : 4, ticks = [-far, 0, far];
    if (String([steep, ...ticks]) !== ticked) {
      ticked = String([steep, ...ticks]);
      model("z-ticks").ticks = ticks.map(at);
      model("z").left[0].major_label_overrides = new Map(ticks.map((tick) => [at(tick), told(tick)]));
    }
    reach.forEach((r, i) => model(["band68", "band95"][i]).setv({ bottom: -at(r), top: at(r) }));
    document.getElementById("z-note").textContent = steep ? `z axis: asinh beyond ${LINEAR}` : "";
    return at;
  }

  function names() {
    const inside = set.filter(([, place]) => place >= Math.min(x.start, x.end) && place <= Math.max(x.start, x.end));
    const room = roomy();
    marks.data = {
      x: inside.map(([, place]) => place),
      top: inside.map(() => top),
      label: inside.map(([name, place]) => (room(place) ? name : "")),
    };
    const free = roomy();
    windows.data = {
      ...windows.data,
      number: shown.windows.map((w) => (free((w[0] + w[1]) / 2) ? String(w[2]) : "")),
    };
  }

  // Whether there is room for a word at a place of the axis, beside those that were there before.
  function roomy() {
    const width = model("flux").inner_width || 700, taken = [];
    return (place) => {
      const at = ((place - x.start) / (x.end - x.start)) * width;
      if (taken.some((other) => Math.abs(at - other) < APART)) return false;
      taken.push(at);
      return true;
    };
  }

  function draw() {
    const { flux, z, weight, sd, reach } = shown, edges = ends(borders(shown.x)), at = scaleOfZ(z, reach);
    const [low, high] = limits(flux, shown.model);
    const raised = high + (set.length ? 0.3 : 0) * (high - low);
    const floor = low - (shown.windows.length ? 0.12 : 0) * (high - low); // room for names, and for numbers
    ranges.flux.setv({ start: floor, end: raised, reset_start: floor, reset_end: raised });
    top = raised;
    const heaviest = weight.reduce((most, w) => (w > most ? w : most), 1);
    ranges.weight.setv({ start: 0, end: 1.12 * heaviest, reset_start: 0, reset_end: 1.12 * heaviest });

    steps.data = { x: edges, flux: twice(flux), z: twice(z.map(at)), weight: twice(weight) };
    curve.data = { x: shown.x, model: shown.model };
    // An area has no holes: it is given no height there. Of many pixels it has one corner each: it is what takes
    // the longest to draw.
    const corners = shown.x.length > MANY ? (values) => values : twice;
    const side = (r, sign) => corners(shown.model.map((value, j) => value + (sd[j] >= 0 ? sign * r * sd[j] : 0)));
    bands.data = {
      x: shown.x.length > MANY ? shown.x : edges, low68: side(reach[0], -1), high68: side(reach[0], 1), low95: side(reach[1], -1), high95: side(reach[1], 1),
    };
    areas.data = { x: edges, weight: twice(weight.map((w) => w || 0)) };
    windows.data = {
      left: shown.windows.map((w) => w[0]),
      right: shown.windows.map((w) => w[1]),
      middle: shown.windows.map((w) => (w[0] + w[1]) / 2),
      bottom: shown.windows.map(() => floor),
      number: shown.windows.map(() => ""),
    };
    const out = { x: [], y: [], marker: [] };
    flux.forEach((value, j) => {
      if (value > high || value < low) {
        out.x.push(shown.x[j]);
        out.y.push(value > high ? high : low);
        out.marker.push(value > high ? "triangle" : "inverted_triangle");
      }
    });
    beyond.data = out;
    names();
  }

  function clear(reach) {
    shown = null;
    scaleOfZ([], reach);
    for (const source of [steps, curve, bands, areas, windows, marks, beyond]) {
      source.data = Object.fromEntries(Object.keys(source.data).map((name) => [name, []]));
    }
  }

  return {
    show(row) {
      const run = page.runs[page.run[row]], place = page.place[row];
      axes(run);
      if (place < 0) return clear(run.reach);
      shown = spectrumOf(run, place);
      draw();
    },
    mark(pairs) {
      set = pairs;
      if (shown) draw();
    },
    zoomed() {
      if (shown) names();
    },
    // What the panels show at a place of the axis, in words.
    at(value) {
      if (!shown || !Number.isFinite(value)) return "";
      let j = 0;
      for (let i = 1; i < shown.x.length; i++) if (Math.abs(shown.x[i] - value) < Math.abs(shown.x[j] - value)) j = i;
      const where = told(shown.x[j], 6);
      if (Number.isNaN(shown.flux[j])) return `${where}: missing; model ${told(shown.model[j])}`;
      return `${where}: ${told(shown.flux[j])}; model ${told(shown.model[j])} ± ${told(shown.sd[j], 2)}; z ${told(shown.z[j], 3)}; weight ${told(shown.weight[j], 2)}`;
    },
    get shown() {
      return shown;
    },
  };
}
