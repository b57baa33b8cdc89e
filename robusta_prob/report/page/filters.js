// Which objects are listed, and in which order.

const COMPARE = {
  ">": (a, b) => a > b, "<": (a, b) => a < b, ">=": (a, b) => a >= b, "<=": (a, b) => a <= b, "=": (a, b) => a === b,
};

// 'foreign "star 4" sn > 20 kind="isolated pixels"' as a test of a row: all words must be in it, all comparisons
// must hold. `unknown` are names that are compared with something and are no column.
function searched(text, page) {
  const words = [], comparisons = [], unknown = [];
  const asked = text.toLowerCase().matchAll(/([^\s<>="]+)\s*(>=|<=|>|<|=)\s*(?:"([^"]*)"|(\S+))|"([^"]+)"|(\S+)/g);
  for (const [, name, sign, within, bare, quoted, word] of asked) {
    if (name === undefined) {
      words.push(quoted === undefined ? word : quoted);
      continue;
    }
    const value = within === undefined ? bare : within;
    const column = page.columns.find((one) => one.name.toLowerCase() === name || one.label.toLowerCase() === name);
    if (!column) unknown.push(name);
    else if (column.kind === "number" && value.trim() !== "" && !Number.isNaN(Number(value))) {
      comparisons.push((row) => COMPARE[sign](column.values[row], Number(value)));
    } else comparisons.push((row) => sign === "=" && column.text(row).toLowerCase() === value);
  }
  const texts = page.columns.filter((column) => column.kind === "text" || column.name === "id" || column.name === page.facet);
  const holds = (row) =>
    comparisons.every((one) => one(row)) &&
    words.every((word) => texts.some((column) => column.text(row).toLowerCase().includes(word)));
  return { holds, unknown };
}

function filtered(page, wanted) {
  const flagged = page.named.get("flagged").values, only = page.only && page.named.get(page.only[0]).values;
  const facet = page.facet && page.named.get(page.facet);
  const keep = new Array(page.run.length);
  for (let row = 0; row < keep.length; row++) {
    keep[row] =
      (!wanted.flagged || flagged[row] === 1) &&
      (!wanted.only || (flagged[row] === 1 && only[row] === 1)) &&
      (!wanted.carried || page.place[row] >= 0) &&
      (!wanted.selection || wanted.selection.has(row)) &&
      (wanted.facet === "" || facet.text(row) === wanted.facet) &&
      wanted.found(row);
  }
  return keep;
}

// Rows that are kept, sorted by a column; what is missing comes last, either way.
function sorted(page, keep, { name, down }) {
  const { values, kind } = page.named.get(name), rank = page.named.get("rank").values, sign = down ? -1 : 1;
  const missing = (value) => (kind === "text" ? value === "" : Number.isNaN(value));
  const compare = (a, b) => {
    const [u, v] = [values[a], values[b]], [lost, gone] = [missing(u), missing(v)];
    if (lost || gone) return lost - gone || rank[a] - rank[b];
    return (u < v ? -sign : u > v ? sign : 0) || rank[a] - rank[b];
  };
  const rows = [];
  keep.forEach((kept, row) => kept && rows.push(row));
  return rows.sort(compare);
}

// The rows as CSV, all columns, as RFC 4180 has it.
function csvOf(page, rows) {
  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text);
  const lines = [page.columns.map((column) => quoted(column.name)).join(",")];
  for (const row of rows) lines.push(page.columns.map((column) => quoted(column.csv(row))).join(","));
  return lines.join("\r\n") + "\r\n";
}
