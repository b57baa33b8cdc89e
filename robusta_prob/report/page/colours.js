// Colours and marks of the points: a ramp for numbers, Okabe & Ito's colours with a mark each for words.

const GREY = "#8c8c8c";
const LOOKS = [
  ["#0072B2", "circle"], ["#D55E00", "triangle"], ["#009E73", "square"], ["#CC79A7", "diamond"],
  ["#E69F00", "inverted_triangle"], ["#56B4E9", "hex"], ["#000000", "star"],
];
const KINDS = {
  lines: LOOKS[0], foreign: LOOKS[1], errors: LOOKS[2], "isolated pixels": LOOKS[3], unclear: ["#000000", "star"],
}; // as in the pictures
const SHAPES = {
  circle: "<circle cx='7' cy='7' r='4.5'/>",
  triangle: "<path d='M7 2 12 11H2z'/>",
  square: "<rect x='2.5' y='2.5' width='9' height='9'/>",
  diamond: "<path d='M7 1 12 7 7 13 2 7z'/>",
  inverted_triangle: "<path d='M7 12 2 3H12z'/>",
  hex: "<path d='M4 2h6l3 5-3 5H4L1 7z'/>",
  star: "<path d='M7 1l1.6 4.2H13L9.500 8l1.300 4.500L7 10l-3.800 2.500L4.500 8 1 5.200h4.400z'/>",
};

// `ofKinds`: the column has the kinds of surprise, whose looks are always the same.
function coloured(column, palette, ofKinds) {
  return column.kind === "number" ? ramp(column, palette) : categories(column, ofKinds);
}

function ramp(column, palette) {
  const scale = isSqueezed(column.values) ? scaleOf(column.values) : null;
  const on = (value) => (scale ? stretched(value, scale) : value), back = (at) => (scale ? unstretched(at, scale) : at);
  const values = Array.from(column.values, on), known = values.filter(Number.isFinite).sort((a, b) => a - b);
  const at = (share) => known[Math.round(share * (known.length - 1))];
  let low = at(0.01), high = at(0.99);
  if (scale || !(high > low)) [low, high] = [known[0], known[known.length - 1]];
  const of = (value) => {
    if (!Number.isFinite(value)) return "#c8c8c8";
    const share = high > low ? (value - low) / (high - low) : 0.5;
    return palette[Math.round(Math.min(Math.max(share, 0), 1) * (palette.length - 1))];
  };
  const colour = values.map(of);
  const legend = [];
  if (known.length) {
    const bar = element("span", "ramp");
    bar.style.background = `linear-gradient(to right, ${[0, 0.25, 0.5, 0.75, 1].map((s) => palette[Math.round(s * (palette.length - 1))]).join(",")})`;
    const under = known[0] < low ? "≤ " : "", over = known[known.length - 1] > high ? "≥ " : "";
    legend.push(element("span", "", under + told(back(low), 3)), bar);
    legend.push(element("span", "", over + told(back(high), 3) + (scale ? " (logarithmic)" : "")));
  } else legend.push(element("span", "", "no values"));
  return { colour, marker: Array(colour.length).fill("circle"), legend };
}

function categories(column, ofKinds) {
  const words = Array.from({ length: column.values.length }, (_, row) => column.text(row));
  const counts = new Map();
  for (const word of words) counts.set(word, (counts.get(word) || 0) + 1);
  const order = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
  const looks = new Map();
  let used = 0;
  for (const word of order) {
    if (word === "" || word === "no") looks.set(word, [GREY, "circle"]);
    else if (ofKinds && KINDS[word]) looks.set(word, KINDS[word]);
    else if (column.kind === "flag") looks.set(word, LOOKS[1]);
    else if (order.length <= LOOKS.length || used < LOOKS.length - 1) looks.set(word, LOOKS[used++]);
    else looks.set(word, [GREY, "square"]);
  }
  const isOther = (word) => looks.get(word)[0] === GREY && looks.get(word)[1] === "square";
  const others = order.filter(isOther);
  const legend = order.filter((word) => !isOther(word)).map((word) => {
    const entry = element("span"), [colour, marker] = looks.get(word);
    entry.innerHTML = `<svg viewBox="0 0 14 14" fill="${colour}">${SHAPES[marker]}</svg>`;
    entry.append(`${word || (ofKinds ? "not flagged" : "none")} (${counts.get(word)})`);
    return entry;
  });
  if (others.length) {
    const entry = element("span");
    entry.innerHTML = `<svg viewBox="0 0 14 14" fill="${GREY}">${SHAPES.square}</svg>`;
    entry.append(`${others.length} others (${others.reduce((sum, word) => sum + counts.get(word), 0)})`);
    legend.push(entry);
  }
  return { colour: words.map((word) => looks.get(word)[0]), marker: words.map((word) => looks.get(word)[1]), legend };
}
