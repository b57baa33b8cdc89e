// What the page carries, decoded once: columns of the objects, runs, maps.

const ARRAYS = { f4: Float32Array, f8: Float64Array, i4: Int32Array, u4: Uint32Array, u1: Uint8Array };

function bytes(text) {
  const raw = atob(text), out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}

function array(text, kind) {
  return new ARRAYS[kind](bytes(text).buffer);
}

// A number as people read it; digits: how many of them count.
function told(value, digits = 4) {
  if (Number.isNaN(value) || value === null) return "";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e6)
    ? value.toExponential(Math.max(digits - 2, 1)).replace("e+", "e")
    : String(Number(value.toPrecision(digits)));
  return text.replace(/-/g, "−");
}

// A p-value from minus its logarithm, which may be smaller than any number here.
function probability(minusLog10) {
  if (Number.isNaN(minusLog10)) return "";
  if (minusLog10 < 4) return told(10 ** -minusLog10, 2);
  let power = Math.ceil(minusLog10), factor = (10 ** (power - minusLog10)).toFixed(1);
  if (factor === "10.0") [power, factor] = [power - 1, "1.0"];
  const digits = String(power).replace(/\d/g, (digit) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]);
  return `${factor} × 10⁻${digits}`;
}

function readColumn(packed) {
  const { name, label, kind } = packed, column = { name, label, kind, whole: packed.whole };
  if (kind === "text") {
    const codes = array(packed.data, "u4"), levels = packed.levels;
    column.values = Array.from(codes, (code) => levels[code]);
    column.text = (row) => column.values[row];
    column.csv = column.text;
  } else if (kind === "flag") {
    column.values = array(packed.data, "u1");
    column.text = (row) => (column.values[row] ? "yes" : "no");
    column.csv = (row) => (column.values[row] ? "True" : "False");
  } else {
    column.values = array(packed.data, "f8");
    column.text = (row) => (column.whole ? String(column.values[row]).replace("-", "−") : told(column.values[row]));
    column.csv = (row) => (Number.isNaN(column.values[row]) ? "" : String(column.values[row]));
  }
  return column;
}

function readPage() {
  const page = JSON.parse(document.getElementById("page").textContent);
  const columns = page.columns.map(readColumn);
  return {
    ...page,
    columns,
    named: new Map(columns.map((column) => [column.name, column])),
    run: array(page.run, "i4"),
    place: array(page.place, "i4"),
    maps: page.maps.map(({ name, x, y }) => ({ name, x: array(x, "f8"), y: array(y, "f8") })),
    runs: page.runs.map((run, number) => ({
      ...run,
      grid: array(run.grid, "f8"),
      basis: array(run.basis, "f4"),
      coefficients: array(run.coefficients, "f8"),
      zEnd: array(run.zEnd, "f8"),
      sdLow: array(run.sdLow, "f8"),
      sdHigh: array(run.sdHigh, "f8"),
      weightEnd: array(run.weightEnd, "f8"),
      cells: document.getElementById(`cells-${number}`).textContent,
    })),
  };
}

// The extent of the finite ones among some values; null where there are none.
function extent(values, rows) {
  let low = Infinity, high = -Infinity;
  for (const row of rows) {
    const value = values[row];
    if (Number.isFinite(value)) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  return low <= high ? [low, high] : null;
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text; // never HTML: ids are whatever a survey calls them
  return made;
}
