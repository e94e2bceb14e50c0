"use strict";
// Charts are drawn once they come near the window; tables are sorted and searched.
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 40rem)");
  const drawn = new Set();

  // What begins with "--" is a colour of the style sheet.
  function coloured(value, colour) {
    if (typeof value === "string") return value.startsWith("--") ? colour(value) : value;
    if (Array.isArray(value)) return value.map((one) => coloured(one, colour));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, coloured(one, colour)]));
  }

  function merged(layout, more) {
    const found = { ...layout };
    for (const [key, value] of Object.entries(more)) {
      const both = typeof value === "object" && !Array.isArray(value);
      found[key] = both ? { ...found[key], ...value } : value;
    }
    return found;
  }

  function draw(name) {
    const place = document.getElementById("chart-" + name);
    const chart = charts[name];
    const style = getComputedStyle(document.documentElement);
    const known = {};
    const colour = (token) => (known[token] ??= style.getPropertyValue(token).trim());
    const layout = coloured(merged(chart.layout, narrow.matches ? chart.narrow : {}), colour);
    const font = { color: colour("--ink"), family: getComputedStyle(document.body).fontFamily, size: 12 };
    place.style.minHeight = layout.height + "px";
    Plotly.react(place, coloured(chart.traces, colour), {
      ...layout,
      font,
      autosize: true,
      dragmode: false,
      showlegend: false,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      hoverlabel: { bgcolor: colour("--area"), bordercolor: colour("--line"), align: "left", font },
    }, { displayModeBar: false, responsive: true });
    if (!drawn.has(name)) performance.mark("chart-" + name);
    drawn.add(name);
  }

  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watch.unobserve(entry.target);
      draw(entry.target.id.slice("chart-".length));
    }
  }, { rootMargin: "300px" });
  const again = () => drawn.forEach(draw);

  // What draws is big: it is made ready when the page can be seen already.
  function begin() {
    const script = document.createElement("script");
    script.textContent = document.getElementById("plotly").textContent;
    document.body.append(script);
    for (const name of Object.keys(charts)) watch.observe(document.getElementById("chart-" + name));
    dark.addEventListener("change", again);
    narrow.addEventListener("change", again);
    addEventListener("beforeprint", () => Object.keys(charts).forEach((name) => drawn.has(name) || draw(name)));
  }
  requestAnimationFrame(() => setTimeout(begin));

  function sort(table, index, head) {
    const body = table.tBodies[0];
    const isNumber = head.classList.contains("n");
    const before = head.getAttribute("aria-sort");
    const down = before ? before === "ascending" : isNumber;
    const keyed = [...body.rows].map((row) => {
      const cell = row.cells[index];
      return [isNumber ? Number(cell.dataset.value) : cell.textContent, row];
    });
    keyed.sort(([a], [b]) => (isNumber ? a - b : a.localeCompare(b)) * (down ? -1 : 1));
    body.append(...keyed.map(([, row]) => row));
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, index) => {
      head.querySelector("button").addEventListener("click", () => sort(table, index, head));
    });
  }

  const search = document.getElementById("search");
  search?.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...document.getElementById(search.dataset.table).tBodies[0].rows];
    let found = 0;
    for (const row of rows) {
      row.dataset.text ??= [...row.querySelectorAll("code")].map((code) => code.textContent).join("\n").toLowerCase();
      row.hidden = !words.every((word) => row.dataset.text.includes(word));
      found += row.hidden ? 0 : 1;
    }
    document.getElementById("found").textContent = `${found} of ${rows.length}`;
  });
})();
