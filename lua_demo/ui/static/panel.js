// The panel below the stage: a table of numbers, histograms, and the table of pins.
const rows = new Map(); // key -> the cells of its numbers

function buildPanel() {
  rows.clear();
  const there = entries.filter(loaded), heads = ["Picture", ...METRICS.map(([, name]) => name)];
  const body = there.map((entry) => {
    const line = make("tr"), head = Object.assign(make("th"), { scope: "row", textContent: entry.label });
    const cells = METRICS.map(() => make("td"));
    rows.set(entry.key, { head, cells });
    line.append(head, ...cells);
    return line;
  });
  ref("numbers").replaceChildren(tableHead(heads), withChildren(make("tbody"), body));
  ref("reference").replaceChildren(new Option("no reference", ""), ...there.map((entry) => new Option(entry.label, entry.key)));
  ref("histograms").replaceChildren(...there.map((entry) => {
    const cell = make("figure"), caption = make("figcaption");
    cell.dataset.key = entry.key;
    cell.append(Object.assign(make("canvas"), { width: 256, height: 72 }), caption);
    caption.append(Object.assign(make("b"), { textContent: entry.label }), make("span"));
    return cell;
  }));
  if (shownCrop) fillPanel(shownCrop); // what was told before
}

function tableHead(names) {
  const cells = names.map((name) => Object.assign(make("th"), { scope: "col", textContent: name }));
  return withChildren(make("thead"), [withChildren(make("tr"), cells)]);
}

function showPanel() {
  ref("panel").hidden = !(wantsNumbers() || view.pins.length || view.exposure || view.loupe);
  ref("measures").hidden = !view.measure;
  ref("histograms").hidden = !view.histogram;
  ref("pin").hidden = !view.loupe;
  ref("reference").value = referenceEntry()?.key ?? "";
}

function fillPanel(crop) {
  const reference = referenceEntry();
  write(ref("crop"), `Visible crop: ${crop.width} × ${crop.height} px from ${crop.x}, ${crop.y}`);
  for (const [key, { head, cells }] of rows) {
    const row = numbers.get(key) ?? {}, own = key === reference?.key;
    write(head, entryOf(key).label + (own ? ", reference" : ""));
    METRICS.forEach(([name, , digits], i) => write(cells[i], own ? "·" : figure(row[name], digits)));
  }
  if (view.histogram) drawHistograms();
}

// One scale for all, which the fullest one in fifty bins exceed: a flat sky would press everything else down.
function drawHistograms() {
  const there = [...ref("histograms").children].filter((cell) => numbers.get(cell.dataset.key)?.histogram);
  const shares = new Map(there.map((cell) => [cell, numbers.get(cell.dataset.key).histogram.map((counts) => {
    const all = counts.reduce((sum, count) => sum + count, 0);
    return Array.from(counts, (count) => count / all);
  })]));
  const bins = [...shares.values()].flat(2).sort((a, b) => a - b), top = Math.max(1e-6, bins[Math.floor(0.98 * bins.length)] * 1.2);
  for (const [cell, channels] of shares) drawHistogram(cell, channels, top);
}

function drawHistogram(cell, [red, green, blue, luma], top) {
  const canvas = cell.querySelector("canvas"), pen = canvas.getContext("2d"), { width, height } = canvas;
  pen.clearRect(0, 0, width, height);
  const level = (share) => height - Math.min(1, share / top) * (height - 2);
  pen.fillStyle = "#8a8a8a80";
  luma.forEach((share, i) => pen.fillRect(i, level(share), 1, height));
  for (const [channel, colour] of [[red, "#e5484d"], [green, "#2f9e5f"], [blue, "#4a84f5"]]) {
    pen.strokeStyle = colour;
    pen.beginPath();
    channel.forEach((share, i) => pen.lineTo(i + 0.5, level(share)));
    pen.stroke();
  }
  const mean = luma.reduce((sum, share, i) => sum + share * i, 0), percent = (share) => `${(100 * share).toFixed(1)} %`;
  const text = `mean ${mean.toFixed(1)}, ${percent(luma[0])} at 0, ${percent(luma[255])} at 255`;
  write(cell.querySelector("span"), text);
  canvas.setAttribute("role", "img");
  describe(canvas, `Histogram of ${cell.querySelector("b").textContent}: ${text}`);
}

ref("reference").addEventListener("change", (event) => setReference(event.target.value));
function setReference(key) {
  view.reference = key;
  redraw();
}
