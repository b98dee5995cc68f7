"use strict";
// Draws the figures the page carries in its #data element. Words reach the page as text only.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const config = {
    displaylogo: false,
    // Plotly 7 offers to post the chart to its makers' server; a survey is not theirs to have.
    showSendToCloud: false,
    plotlyServerURL: "",
    responsive: true,
    doubleClick: "reset",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "resetCameraLastSave3d"],
    toImageButtonOptions: { scale: 2, filename: "pointloom" },
  };
  const drawn = new Set();
  const bytes = (coded) => Uint8Array.from(atob(coded), (letter) => letter.charCodeAt(0));

  // Plotly cannot read CSS variables, so the page's light or dark colours are handed to it.
  function theme(layout) {
    const css = getComputedStyle(document.documentElement);
    const colour = (name) => css.getPropertyValue(name).trim();
    const update = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      "font.color": colour("--quiet"),
      "font.family": getComputedStyle(document.body).fontFamily,
      "font.size": 12.5,
      "hoverlabel.bgcolor": colour("--card"),
      "hoverlabel.bordercolor": colour("--line"),
      "hoverlabel.font.color": colour("--ink"),
      "modebar.bgcolor": "rgba(0,0,0,0)",
      "modebar.color": colour("--quiet"),
      "modebar.activecolor": colour("--accent"),
    };
    const axes = layout.scene
      ? ["scene.xaxis", "scene.yaxis", "scene.zaxis"]
      : ["xaxis", "yaxis"];
    for (const axis of axes) {
      update[`${axis}.gridcolor`] = colour("--grid");
      update[`${axis}.linecolor`] = colour("--line");
      update[`${axis}.tickcolor`] = colour("--line");
      update[`${axis}.zerolinecolor`] = colour("--line");
      update[`${axis}.color`] = colour("--quiet");
    }
    return update;
  }

  // Names under the pointer, one per code: made here, for as text they would be most of the page.
  function name(trace) {
    const names = trace.meta && trace.meta.names;
    if (!names) return;
    if (trace.type === "heatmap") {
      const codes = bytes(trace.z.bdata);
      const [, columns] = trace.z.shape.split(",").map(Number);
      trace.hovertext = [];
      for (let start = 0; start < codes.length; start += columns) {
        trace.hovertext.push(Array.from(codes.subarray(start, start + columns), (code) => names[code]));
      }
    } else {
      trace.text = Array.from(bytes(trace.marker.color.bdata), (code) => names[code]);
    }
  }

  async function draw(place, figure) {
    figure.data.forEach(name);
    // The legend of a chart stands where the buttons would; there is nothing in it to search for.
    const hasButtons = !place.matches(".curve, [data-figure=certainty]");
    await Plotly.newPlot(place, figure.data, figure.layout, { ...config, displayModeBar: hasButtons });
    await Plotly.relayout(place, theme(figure.layout));
    drawn.add(place);
  }

  // The maps of a scan show the same ground at all times.
  function link(maps) {
    let busy = false;
    for (const map of maps) {
      map.on("plotly_relayout", async (change) => {
        if (busy || !Object.keys(change).some((key) => /^[xy]axis\./.test(key) && /range/.test(key))) return;
        busy = true;
        const { xaxis, yaxis } = map.layout;
        const ranges = { "xaxis.range": [...xaxis.range], "yaxis.range": [...yaxis.range] };
        await Promise.all(maps.filter((m) => m !== map).map((m) => Plotly.relayout(m, ranges)));
        busy = false;
      });
    }
  }

  function offerModes(article, modes) {
    const place = article.querySelector("[data-figure=scene]");
    const buttons = article.querySelectorAll("[data-mode]");
    const legends = article.querySelectorAll("[data-legend]");
    const show = (index) => {
      const { codes, scale, names } = modes[index];
      const values = bytes(codes);
      buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(i === index)));
      legends.forEach((legend, i) => { legend.hidden = i !== index; });
      Plotly.restyle(place, {
        "marker.color": [values],
        "marker.colorscale": [scale],
        "marker.cmax": scale.length / 2 - 0.5,
        text: [Array.from(values, (code) => names[code])],
      });
    };
    // Assigned, not added: a scan shown twice must not answer twice.
    buttons.forEach((button, i) => { button.onclick = () => show(i); });
    const pressed = [...buttons].findIndex((button) => button.getAttribute("aria-pressed") === "true");
    if (pressed > 0) show(pressed);
  }

  async function showScan(index) {
    // A browser keeps few WebGL views alive, so those of a hidden scan are given back.
    for (const place of [...drawn]) {
      if (place.closest("article.scan")) { Plotly.purge(place); drawn.delete(place); }
    }
    document.querySelectorAll("article.scan").forEach((article, i) => { article.hidden = i !== index; });
    const part = data.scans[index];
    if (!part) return;
    const article = document.querySelector(`article.scan[data-scan="${index}"]`);
    const places = [...article.querySelectorAll("[data-figure]")];
    await Promise.all(places.map((place) => draw(place, structuredClone(part.figures[place.dataset.figure]))));
    link(places.filter((place) => /^(panel-\d+|confidence)$/.test(place.dataset.figure)));
    offerModes(article, part.modes);
  }

  const choice = document.getElementById("choice");
  if (choice) choice.addEventListener("change", () => showScan(Number(choice.value)));
  const curves = document.querySelectorAll("#training [data-figure]");
  const first = data.scans.length ? showScan(choice ? Number(choice.value) : 0) : Promise.resolve();
  const rest = [...curves].map((place) => draw(place, data.curves[place.dataset.figure]));
  Promise.all([first, ...rest]).then(() => { document.documentElement.dataset.ready = "yes"; });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const place of drawn) Plotly.relayout(place, theme(place.layout));
  });
})();
