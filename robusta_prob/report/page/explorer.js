// What is shown, listed and selected, and what changes it. `window.explorer` is for scripts and tests.

window.startExplorer = function (doc, fixed) {
  const page = readPage(), by = (id) => document.getElementById(id), n = page.run.length;
  const model = (name) => doc.get_model_by_name(name);
  const objects = model("objects"), ring = model("ring"), filter = model("filter");
  const numeric = page.columns.filter((column) => column.kind !== "text");
  const named = (name) => page.named.get(name);
  const everybody = Array.from({ length: n }, (_, row) => row);
  const state = { current: -1, order: [], keep: [], selected: new Set(), sort: { name: "rank", down: false } };
  const axes = { x: null, y: null, map: page.maps[0] || null };

  // Points --------------------------------------------------------------------------------------------

  const usual = { x: model("scatter").below[0].ticker, y: model("scatter").left[0].ticker };
  const nothing = new Float64Array(n).fill(NaN);
  const flagged = named("flagged").values;
  const size = Array.from(flagged, (one) => (one ? 9 : 5)), alpha = Array.from(flagged, (one) => (one ? 0.95 : 0.55));

  function points() {
    const { colour, marker, legend } = coloured(named(by("colour").value), page.palette, ["kind", "flagged_as"].includes(by("colour").value));
    by("legend").replaceChildren(...legend);
    objects.data = {
      mx: axes.map ? axes.map.x : nothing,
      my: axes.map ? axes.map.y : nothing,
      x: axes.x.drawn,
      y: axes.y.drawn,
      colour, marker, size, alpha,
      id: everybody.map(named("id").text),
      kind: everybody.map((row) => named("flagged_as").text(row) || "not flagged"),
      p: everybody.map((row) => probability(named("minus_log10_least_p").values[row]) || "unknown"),
    };
    encircle();
  }

  function encircle() {
    const row = state.current;
    const at = (values) => (row < 0 ? [] : [values[row]]);
    ring.data = { mx: at(objects.data.mx), my: at(objects.data.my), x: at(objects.data.x), y: at(objects.data.y) };
  }

  function fitAxis(range, values, rows, down) {
    const [low, high] = extent(values, rows) || [0, 1], room = 0.05 * (high - low) || 0.5;
    const ends = down ? [high + room, low - room] : [low - room, high + room];
    range.setv({ start: ends[0], end: ends[1], reset_start: ends[0], reset_end: ends[1] });
  }

  // One side of the scatter: which column, and how its values lie on the axis.
  function axisOf(side) {
    const column = named(by(`${side}-axis`).value), values = Float64Array.from(column.values);
    const scale = by(`${side}-stretch`).checked ? scaleOf(values) : null;
    return { column, scale, drawn: scale ? values.map((v) => stretched(v, scale)) : values };
  }

  function fitAxes() {
    const rows = everybody.filter((row) => state.keep[row]);
    const use = rows.length ? rows : everybody;
    if (axes.map) {
      const placed = use.filter((row) => Number.isFinite(axes.map.x[row]));
      fitAxis(model("map").x_range, axes.map.x, placed, false);
      fitAxis(model("map").y_range, axes.map.y, placed, false);
    }
    const both = use.filter((row) => Number.isFinite(axes.x.drawn[row]) && Number.isFinite(axes.y.drawn[row]));
    const scatter = model("scatter"), drawn = { x: [scatter.x_range, scatter.below[0]], y: [scatter.y_range, scatter.left[0]] };
    for (const side of ["x", "y"]) {
      const [range, axis] = drawn[side], { column, scale, drawn: values } = axes[side];
      fitAxis(range, values, both, by(`${side}-down`).checked);
      axis.axis_label = column.label;
      if (scale) fixed[side].ticks = ticksOf(scale, extent(values, both) || [0, 1]).map((v) => stretched(v, scale));
      axis.major_label_overrides = new Map(scale ? fixed[side].ticks.map((at) => [at, told(unstretched(at, scale), 3)]) : []);
      axis.ticker = scale ? fixed[side] : usual[side];
    }
  }

  // The object that is shown --------------------------------------------------------------------------

  const spectrum = makeSpectrum(doc, page, []);
  const table = makeTable(by("table"), page.columns, { sort: sortBy, pick });

  function headline(row) {
    const parts = [element("b", "", named("id").text(row))];
    parts[0].title = named("id").text(row);
    if (page.facet) parts.push(element("span", "badge", `${named(page.facet).label} ${named(page.facet).text(row)}`));
    const own = named("kind").text(row);
    const what = flagged[row] ? own || "flagged" : own ? `not flagged, ${own}` : "not flagged";
    parts.push(element("span", `badge${flagged[row] ? " flagged" : ""}`, what));
    for (const [name, label] of [["rank", "rank"], ["minus_log10_p", "p"], ["minus_log10_p_run", "p of runs"], ["q_any", "q"], ["sn", "S/N"]]) {
      if (!named(name)) continue;
      const value = named(name).values[row];
      const words = name.startsWith("minus") ? probability(value) : name === "q_any" && value ? probability(-Math.log10(value)) : named(name).text(row);
      parts.push(element("span", "", `${label} ${words || "unknown"}`));
    }
    const reason = named("reason") && named("reason").text(row);
    if (reason) parts.push(element("span", "", reason));
    by("headline").replaceChildren(...parts);
  }

  function windowsInWords() {
    const own = spectrum.shown ? spectrum.shown.windows : [], seen = new Set();
    const words = own.filter((w) => !seen.has(w[2]) && seen.add(w[2])).map(([, , number, centre, depth, sd]) =>
      `${number} at ${told(centre, 6)}` + (depth === null ? "" : `, height ${told(depth, 3)} ± ${told(sd, 2)}`));
    by("windows").textContent = words.length ? `windows: ${words.join("; ")}` : "";
    by("windows").title = by("windows").textContent;
  }

  function show(row, reveal = true) {
    state.current = row;
    headline(row);
    spectrum.show(row);
    const carried = page.place[row] >= 0;
    by("no-spectrum").hidden = carried;
    by("no-spectrum").textContent = "This page does not carry the spectrum of this object: see “Fit and calibration”.";
    windowsInWords();
    by("readout").textContent = "";
    encircle();
    table.mark(state);
    if (reveal) table.reveal(state.order.indexOf(row));
  }

  function step(by_) {
    const { order, current } = state;
    if (!order.length) return;
    const at = order.indexOf(current);
    const next = at < 0 && by_ < Infinity ? 0 : Math.min(Math.max(at + by_, 0), order.length - 1);
    if (state.selected.size === 1) select([order[next]]);
    show(order[next]);
  }

  // Selection -----------------------------------------------------------------------------------------

  let faded = []; // what Bokeh has as selected, so that all others fade; they do not for the sake of one

  function select(rows) {
    state.selected = new Set(rows);
    const wanted = rows.length === 1 ? [] : rows;
    const change = wanted.length || faded.length || objects.selected.indices.length;
    faded = wanted; // before Bokeh tells of it
    if (change) objects.selected.indices = wanted;
    selectionChanged();
  }

  function selectionChanged() {
    by("clear").disabled = !state.selected.size;
    const number = state.selected.size || state.order.length;
    by("export").textContent = `export CSV (${number} ${state.selected.size ? "selected" : "listed"})`;
    table.mark(state);
  }

  // Of a lasso or a box: the most surprising one of it is shown.
  function dragged() {
    const { indices } = objects.selected;
    if (indices.length === faded.length && indices.every((row, i) => row === faded[i])) return; // by the page itself
    const inside = indices.filter((row) => state.keep[row]);
    select(inside);
    if (by("only-selected").checked) list();
    if (inside.length) {
      const rank = named("rank").values;
      show(inside.reduce((best, row) => (rank[row] < rank[best] ? row : best)));
    }
  }

  function pick(row, more) {
    if (by("only-selected").checked && !more) return show(row); // to look at a selection does not change it
    const rows = new Set(more ? state.selected : []);
    if (more && rows.has(row)) rows.delete(row);
    else rows.add(row);
    select([...rows]);
    show(row);
  }

  // The nearest point to a tap, if there is one close by; Bokeh's own tool would take all that overlap.
  function tapped(name, event) {
    const fig = model(name), { x_range: h, y_range: v } = fig, [xs, ys] = name === "map" ? ["mx", "my"] : ["x", "y"];
    const perX = fig.inner_width / (h.end - h.start), perY = fig.inner_height / (v.end - v.start);
    let best = -1, least = 14 ** 2;
    for (let row = 0; row < n; row++) {
      if (!state.keep[row]) continue;
      const dx = (objects.data[xs][row] - event.x) * perX, dy = (objects.data[ys][row] - event.y) * perY;
      const distance = dx * dx + dy * dy;
      if (distance <= least) [best, least] = [row, distance];
    }
    const { shift, ctrl } = event.modifiers || {};
    if (best >= 0) pick(best, shift || ctrl);
    else if (!shift && !ctrl) select([]);
  }

  // The list ------------------------------------------------------------------------------------------

  function list() {
    const { holds, unknown } = searched(by("search").value, page);
    state.keep = filtered(page, {
      found: holds,
      flagged: by("only-flagged").checked,
      only: by("only").checked,
      carried: by("only-carried").checked,
      selection: by("only-selected").checked && state.selected.size ? state.selected : null,
      facet: page.facet ? by("facet").value : "",
    });
    state.order = sorted(page, state.keep, state.sort);
    filter.booleans = state.keep;
    by("listed").textContent = unknown.length
      ? `there is no column “${unknown[0]}”: its name is in the tip of its heading`
      : `${state.order.length} of ${n} objects`;
    table.show(state);
    selectionChanged();
  }

  function sortBy(name) {
    const { sort } = state;
    state.sort = { name, down: sort.name === name ? !sort.down : false };
    state.order = sorted(page, state.keep, state.sort);
    table.show(state);
    by("table").scrollTop = 0;
  }

  function exportRows() {
    const all = sorted(page, everybody.map(() => true), state.sort); // a selection need not be listed
    return state.selected.size ? all.filter((row) => state.selected.has(row)) : state.order;
  }

  function exported() {
    const link = element("a");
    link.href = URL.createObjectURL(new Blob([csvOf(page, exportRows())], { type: "text/csv" }));
    link.download = "objects.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  // Controls ------------------------------------------------------------------------------------------

  function fill(id, entries, chosen) {
    by(id).replaceChildren(...entries.map(([value, text]) => Object.assign(element("option", "", text), { value })));
    if (chosen !== undefined) by(id).value = chosen;
  }

  function axisChosen() {
    for (const side of ["x", "y"]) axes[side] = axisOf(side);
    points();
    fitAxes();
  }

  function columnChosen(side) {
    by(`${side}-stretch`).checked = isSqueezed(named(by(`${side}-axis`).value).values);
    axisChosen();
  }

  const choices = page.columns.map(({ name, label }) => [name, label]);
  const plottable = numeric.map(({ name, label }) => [name, label]);
  const [first, second] = page.axes.map((name) => name.replace(/^-/, ""));
  fill("x-axis", plottable, first);
  fill("y-axis", plottable, second);
  ["x", "y"].forEach((side, i) => { by(`${side}-down`).checked = page.axes[i].startsWith("-"); });
  fill("colour", choices, flagged.some(Boolean) ? "flagged_as" : "minus_log10_p");
  fill("map-choice", page.maps.map(({ name }) => [name, name]));
  by("map-choice").disabled = !page.maps.length;
  by("no-map").hidden = Boolean(page.maps.length);
  by("figure-map").hidden = !page.maps.length;
  if (!page.maps.length) by("figure-map").parentElement.style.flex = "none"; // the room is the scatter's
  if (page.facet) {
    const facet = named(page.facet), levels = [...new Set(everybody.map(facet.text))];
    levels.sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
    by("facet-label").hidden = false;
    by("facet-label").firstElementChild.textContent = facet.label;
    fill("facet", [["", "all"], ...levels.map((level) => [level, level])]);
  }
  by("only-label").hidden = !page.only;
  if (page.only) by("only-label").lastElementChild.textContent = page.only[1];
  by("carried-label").hidden = !page.place.some((place) => place < 0);
  const sets = Object.keys(page.lines);
  by("lines-label").hidden = !sets.length;
  fill("lines", [["", "none"], ...sets.map((name) => [`=${name}`, name])]);
  by("counts").textContent = `${n} objects, ${flagged.reduce((sum, one) => sum + one, 0)} flagged`;

  const on = (id, event, act) => by(id).addEventListener(event, act);
  for (const id of ["only-flagged", "only", "only-carried", "only-selected"]) on(id, "change", list);
  on("search", "input", list);
  on("facet", "change", () => { list(); fitAxes(); });
  for (const id of ["x-down", "y-down", "x-stretch", "y-stretch"]) on(id, "change", axisChosen);
  for (const side of ["x", "y"]) on(`${side}-axis`, "change", () => columnChosen(side));
  on("map-choice", "change", () => {
    axes.map = page.maps[by("map-choice").selectedIndex];
    points();
    fitAxes();
  });
  on("colour", "change", points);
  on("lines", "change", () => spectrum.mark(page.lines[by("lines").value.slice(1)] || []));
  on("previous", "click", () => step(-1));
  on("next", "click", () => step(1));
  on("export", "click", exported);
  on("clear", "click", () => { select([]); if (by("only-selected").checked) list(); });
  on("help", "click", () => by("keys").showModal());
  document.addEventListener("click", (event) => {
    if (!by("summary").contains(event.target)) by("summary").open = false;
  });

  const keys = {
    j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
    Home: () => step(-Infinity), End: () => step(Infinity),
    "/": () => by("search").focus(), "?": () => by("keys").showModal(), Escape: () => by("clear").click(),
  };
  document.addEventListener("keydown", (event) => {
    const inField = event.target.matches("input[type=search], select");
    if (by("keys").open || event.ctrlKey || event.metaKey || event.altKey) return;
    if (inField) {
      if (event.key === "Escape" || event.key === "Enter") event.target.blur();
      if (event.key === "Enter" && event.target.id === "search" && state.order.length) show(state.order[0]);
      return;
    }
    if (keys[event.key]) {
      event.preventDefault();
      keys[event.key]();
    }
  });

  // Beginning -----------------------------------------------------------------------------------------

  window.explorer = {
    state, page, show, select, step, tapped, dragged,
    zoomed: spectrum.zoomed,
    moved(value) { by("readout").textContent = spectrum.at(value); },
    csv: () => csvOf(page, exportRows()),
    get shown() { return spectrum.shown; },
  };
  list();
  for (const side of ["x", "y"]) by(`${side}-stretch`).checked = isSqueezed(named(by(`${side}-axis`).value).values);
  axisChosen();
  const most = everybody.reduce((best, row) => (named("rank").values[row] < named("rank").values[best] ? row : best), 0);
  if (n) show(most);
  document.body.dataset.ready = "yes";
};
