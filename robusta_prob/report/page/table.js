// A table of which only what is in sight is in the document: thousands of lines scroll at once.

const LINE = 23, SPARE = 6; // height of a line [px], as in page.css; lines beyond either edge

function makeTable(place, columns, { sort, pick }) {
  const table = element("table"), head = element("thead"), body = element("tbody"), row = element("tr");
  const headings = columns.map((column) => {
    const th = element("th", column.kind === "number" ? "number" : "");
    th.title = column.label === column.name ? column.name : `${column.label} [${column.name}]`;
    th.dataset.column = column.name;
    th.addEventListener("click", () => sort(column.name));
    row.append(th);
    return th;
  });
  const widths = columns.map((column) => {
    let longest = heading(column).length + 2;
    for (let i = 0; i < Math.min(column.values.length, 200); i++) longest = Math.max(longest, column.text(i).length);
    return Math.min(Math.max(7.6 * longest + 16, 52), 240);
  });
  const group = element("colgroup");
  for (const width of widths) group.append(Object.assign(element("col"), { style: `width: ${width}px` }));
  table.style.width = `${widths.reduce((a, b) => a + b, 0)}px`;
  head.append(row);
  table.append(group, head, body);
  place.append(table);

  let order = [], current = -1, selected = new Set(), first = -1, last = -1;
  const look = (index) => (index === current ? "current" : selected.has(index) ? "selected" : "");
  body.addEventListener("click", (event) => {
    const line = event.target.closest("tr[data-row]");
    if (line) pick(Number(line.dataset.row), event.shiftKey || event.ctrlKey || event.metaKey);
  });
  place.addEventListener("scroll", () => draw(false));
  new ResizeObserver(() => draw(false)).observe(place);

  function gap(lines) {
    const tr = element("tr", "gap"), td = element("td");
    td.colSpan = columns.length;
    td.style.height = `${lines * LINE}px`;
    tr.append(td);
    return tr;
  }

  function draw(always) {
    const height = Math.ceil(place.clientHeight / LINE) + 2 * SPARE, latest = Math.max(order.length - height, 0);
    // of a list that has become shorter the end; even, so that stripes stay where they are
    const from = Math.min(Math.max(Math.floor(place.scrollTop / LINE) - SPARE, 0), latest) & ~1;
    const to = Math.min(from + height + 1, order.length);
    if (!always && from === first && to === last) return;
    [first, last] = [from, to];
    const lines = order.slice(from, to).map((index) => {
      const tr = element("tr", look(index));
      tr.dataset.row = index;
      for (const column of columns) tr.append(element("td", column.kind === "number" ? "number" : "", column.text(index)));
      return tr;
    });
    body.replaceChildren(gap(from), ...lines, gap(order.length - to));
  }

  return {
    // The same lines, of which others are selected or current.
    mark(state) {
      ({ current, selected } = state);
      for (const tr of body.children) if (tr.dataset.row) tr.className = look(Number(tr.dataset.row));
    },
    show(state) {
      ({ order, current, selected } = state);
      headings.forEach((th, i) => {
        const own = columns[i].name === state.sort.name;
        th.textContent = heading(columns[i]) + (own ? (state.sort.down ? " ▼" : " ▲") : "");
        th.setAttribute("aria-sort", own ? (state.sort.down ? "descending" : "ascending") : "none");
      });
      draw(true);
    },
    reveal(at) {
      if (at < 0) return;
      const top = at * LINE, room = place.clientHeight - 2 * LINE;
      if (top < place.scrollTop) place.scrollTop = top;
      else if (top > place.scrollTop + room) place.scrollTop = top - room;
    },
  };
}

function heading(column) {
  return column.label.length <= 20 ? column.label : column.name;
}
