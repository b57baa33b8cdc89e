// One spectrum from its codes, see report/codes.py.

function spectrumOf(run, place) {
  const m = run.grid.length, code = bytes(run.cells.slice(4 * m * place, 4 * m * (place + 1)));
  const step = Math.asinh(run.zEnd[place]) / 127;
  const low = run.sdLow[place], slope = (run.sdHigh[place] - low) / 254, heaviest = run.weightEnd[place] / 254;
  const out = { x: run.grid, reach: run.reach, windows: run.windows[place] };
  for (const name of ["flux", "model", "sd", "z", "weight"]) out[name] = new Float64Array(m).fill(NaN);
  for (let j = 0; j < m; j++) {
    let model = 0;
    for (let k = 0; k < run.rank; k++) model += run.coefficients[place * run.rank + k] * run.basis[k * m + j];
    out.model[j] = model;
    if (code[j] === 0) continue; // missing
    out.z[j] = Math.sinh(step * (code[j] - 128));
    out.sd[j] = Math.exp(low + slope * (code[m + j] - 1));
    out.weight[j] = heaviest * (code[2 * m + j] - 1);
    out.flux[j] = model + out.z[j] * out.sd[j];
  }
  return out;
}

// Where pixels begin and end on the axis: half way to their neighbours.
function borders(x) {
  const m = x.length, out = new Float64Array(m + 1);
  for (let j = 1; j < m; j++) out[j] = 0.5 * (x[j - 1] + x[j]);
  out[0] = m > 1 ? x[0] - (out[1] - x[0]) : x[0] - 0.5;
  out[m] = m > 1 ? x[m - 1] + (x[m - 1] - out[m - 1]) : x[0] + 0.5;
  return out;
}

// Two points for every pixel, its ends: a line through them is a staircase, with holes where values are NaN.
function ends(edges) {
  const m = edges.length - 1, out = new Float64Array(2 * m);
  for (let j = 0; j < m; j++) {
    out[2 * j] = edges[j];
    out[2 * j + 1] = edges[j + 1];
  }
  return out;
}

function twice(values) {
  const out = new Float64Array(2 * values.length);
  for (let j = 0; j < values.length; j++) out[2 * j] = out[2 * j + 1] = values[j];
  return out;
}

// An axis range with room; spikes are cut off where they would squeeze all the rest into a quarter of it.
function limits(...series) {
  const sorted = series.map((values) => values.filter(Number.isFinite).sort()).filter((values) => values.length);
  if (!sorted.length) return [-1, 1];
  const at = (values, share) => values[Math.round(share * (values.length - 1))];
  let low = Math.min(...sorted.map((values) => values[0]));
  let high = Math.max(...sorted.map((values) => values[values.length - 1]));
  const inner = sorted.map((values) => [at(values, 0.005), at(values, 0.995)]);
  if (high - low > 4 * Math.max(...inner.map(([a, b]) => b - a))) {
    low = Math.min(...inner.map(([a]) => a));
    high = Math.max(...inner.map(([, b]) => b));
  }
  const room = 0.08 * (high - low) || 0.1 * Math.abs(high) || 1;
  return [low - room, high + room];
}
