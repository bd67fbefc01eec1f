"use strict";
(() => {
  const root = document.documentElement;
  const charts = JSON.parse(document.getElementById("charts").textContent);

  // ---- light and dark: the system's choice, until the reader makes one
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const read = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    recolour();
  });
  dark.addEventListener("change", () => recolour());

  const axes = (layout) => Object.keys(layout).filter((name) => /^[xy]axis\d*$/.test(name));
  function colours(layout) {
    const looks = { "font.color": read("--ink"), "hoverlabel.bgcolor": read("--card"), "hoverlabel.font.color": read("--ink") };
    for (const name of axes(layout)) {
      looks[`${name}.gridcolor`] = read("--line");
      looks[`${name}.linecolor`] = read("--line");
      looks[`${name}.zerolinecolor`] = read("--line");
    }
    return looks;
  }
  function recolour() {
    for (const chart of charts) {
      const place = document.getElementById(chart.key);
      if (place.dataset.drawn) Plotly.relayout(place, colours(chart.layout));
    }
  }

  // ---- charts: each is drawn when it comes near the window
  function layoutOf(chart, place) {
    const narrow = place.clientWidth < 520;
    const base = {
      height: chart.height,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 12.5, color: read("--ink") },
      hoverlabel: { bgcolor: read("--card"), bordercolor: read("--line"), font: { color: read("--ink"), size: 12.5 }, align: "left" },
      hovermode: "closest",
      modebar: { bgcolor: "rgba(0,0,0,0)", color: read("--soft"), activecolor: read("--accent") },
      legend: { orientation: "h", x: 0, xref: "container", y: 0, yref: "container", yanchor: "bottom" },
      dragmode: window.matchMedia("(pointer: coarse)").matches ? false : "zoom",
    };
    const layout = Object.assign(base, JSON.parse(JSON.stringify(chart.layout)));
    layout.margin = Object.assign({ l: narrow ? 48 : 64, r: 16, t: 26, b: chart.layout.showlegend === false || chart.data.length < 2 ? 48 : 76 }, chart.layout.margin || {});
    for (const name of axes(layout)) {
      layout[name] = Object.assign(
        { gridcolor: read("--line"), linecolor: read("--line"), zerolinecolor: read("--line"), zerolinewidth: 1, automargin: true },
        layout[name],
      );
      if (layout[name].title) layout[name].title = Object.assign({ font: { size: narrow ? 11 : 12 }, standoff: 8 }, layout[name].title);
    }
    return layout;
  }
  const config = {
    responsive: true,
    displaylogo: false,
    modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
    scrollZoom: false,
  };
  async function draw(chart) {
    const place = document.getElementById(chart.key);
    if (place.dataset.drawn) return;
    place.dataset.drawn = "1";
    place.classList.remove("waiting");
    if (chart.width) place.style.minWidth = `${chart.width}px`;
    await Plotly.newPlot(place, chart.data, layoutOf(chart, place), config);
    root.dataset.charts = String(Number(root.dataset.charts || 0) + 1);
  }

  async function unpacked(text) {
    const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }
  async function start() {
    if (!charts.length) {
      root.dataset.ready = String(Math.round(performance.now()));
      return;
    }
    for (const chart of charts) document.getElementById(chart.key).classList.add("waiting");
    if (!("DecompressionStream" in window)) {
      for (const chart of charts) document.getElementById(chart.key).textContent = "This chart needs a browser of 2023 or newer.";
      return;
    }
    const script = document.createElement("script");
    script.textContent = await unpacked(document.getElementById("library").textContent.trim());
    document.head.append(script);
    const seen = new IntersectionObserver(
      async (entries) => {
        const near = entries.filter((entry) => entry.isIntersecting).map((entry) => entry.target);
        near.forEach((place) => seen.unobserve(place));
        await Promise.all(near.map((place) => draw(charts.find((chart) => chart.key === place.id))));
        root.dataset.ready ??= String(Math.round(performance.now())); // what a reader sees first is there
      },
      { rootMargin: "300px 0px" },
    );
    for (const chart of charts) seen.observe(document.getElementById(chart.key));
    window.addEventListener("beforeprint", () => charts.forEach(draw));
  }

  // ---- tables: a click on a heading sorts; unknown figures stay at the end
  const figure = (cell) => {
    const text = cell.textContent.trim();
    const number = parseFloat(text.replace(/,/g, ""));
    return { text, number, known: text !== "-" && text !== "", numeric: /^[-+]?[\d.]/.test(text) && !Number.isNaN(number) };
  };
  function sort(table, column, heading) {
    const ascending = heading.getAttribute("aria-sort") !== "ascending";
    for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => ({ row, key: figure(row.cells[column]) }));
    rows.sort((a, b) => {
      if (a.key.known !== b.key.known) return a.key.known ? -1 : 1;
      const both = a.key.numeric && b.key.numeric;
      const order = both ? a.key.number - b.key.number : a.key.text.localeCompare(b.key.text, undefined, { numeric: true });
      return ascending ? order : -order;
    });
    body.append(...rows.map(({ row }) => row));
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      heading.querySelector("button").addEventListener("click", () => sort(table, column, heading));
    });
  }

  // ---- code: copied with a click
  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        window.getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
  }

  start();
})();
