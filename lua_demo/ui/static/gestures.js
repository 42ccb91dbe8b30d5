// Pointers, wheel and keys.
const fromCentre = (pane, x, y) => {
  const box = pane.getBoundingClientRect();
  return [(x - box.left - box.width / 2) * devicePixelRatio, (y - box.top - box.height / 2) * devicePixelRatio];
};
const setSplit = (split) => { view.split = Math.min(1, Math.max(0, split)); redraw(); };

const pointers = new Map(); // id -> where it was last
let grip = null; // while a divider is dragged: its index, and its position minus the pointer's in widths of the pane
let pressed = null; // where a press began that may become a click
const SLIDING = ["slider", "overlay"], CLICK = 5; // modes with dividers; screen pixels that a click may wander
ref("stage").addEventListener("pointerdown", (event) => {
  const pane = event.target.closest(".pane");
  if (event.button || !pane) return;
  // Where the whole picture is visible there is nothing to pan, so that a drag anywhere moves the divider.
  const divider = event.target.closest(".divider"), slides = SLIDING.includes(view.mode) && pane.classList.contains("still");
  const index = divider ? dividers.indexOf(divider) : slides ? nearestDivider(pane, event.clientX) : -1;
  grip = index < 0 ? null : { index, offset: dividerAt(index) - event.clientX / pane.clientWidth };
  pressed = divider ? null : [event.clientX, event.clientY];
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
  event.target.setPointerCapture(event.pointerId);
  if (view.loupe) pointLoupe(pane, event.clientX, event.clientY);
});
ref("stage").addEventListener("pointermove", (event) => {
  const pane = event.target.closest(".pane"), last = pointers.get(event.pointerId);
  if (last && pointers.size === 2) pinch(pane, event, last);
  else if (last && grip) setDivider(grip.index, grip.offset + event.clientX / pane.clientWidth);
  else if (last) pan((event.clientX - last[0]) * devicePixelRatio, (event.clientY - last[1]) * devicePixelRatio);
  if (last) pointers.set(event.pointerId, [event.clientX, event.clientY]);
  if (view.loupe && pane && largest()) pointLoupe(pane, event.clientX, event.clientY);
});
for (const end of ["pointerup", "pointercancel"]) ref("stage").addEventListener(end, (event) => {
  const click = end === "pointerup" && pressed && Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) < CLICK;
  pointers.delete(event.pointerId);
  if (click && !pointers.size && view.loupe && largest()) togglePin();
  pressed = null;
});

// Called for each finger, while the other one stays: the middle moves half as far as the finger.
function pinch(pane, event, last) {
  const [x, y] = [...pointers].find(([id]) => id !== event.pointerId)[1];
  const distance = (a, b) => Math.max(1, Math.hypot(a - x, b - y));
  const middle = fromCentre(pane, (event.clientX + x) / 2, (event.clientY + y) / 2);
  zoomBy(distance(event.clientX, event.clientY) / distance(...last), middle);
  pan(((event.clientX - last[0]) / 2) * devicePixelRatio, ((event.clientY - last[1]) / 2) * devicePixelRatio);
}

ref("stage").addEventListener("wheel", (event) => {
  const pane = event.target.closest(".pane");
  if (!pane || !largest()) return;
  // Over a picture that fits, the page scrolls: a reader who only passes is not caught. In full screen there is no page.
  const zooms = event.ctrlKey || event.metaKey, alone = document.fullscreenElement === element;
  if (view.zoom === "fit" && !zooms && !alone) return hintAtWheel();
  event.preventDefault();
  const step = Math.exp(-Math.max(-80, Math.min(80, event.deltaY)) * (event.ctrlKey ? 0.01 : 0.003));
  zoomBy(step, fromCentre(pane, event.clientX, event.clientY));
}, { passive: false });

let hinting = 0;
function hintAtWheel() {
  ref("wheel").hidden = false;
  clearTimeout(hinting);
  hinting = setTimeout(() => { ref("wheel").hidden = true; }, 1400);
}

ref("stage").addEventListener("dblclick", (event) => {
  const pane = event.target.closest(".pane");
  if (pane && !event.target.closest(".divider")) setZoom(view.zoom === "fit" ? 1 : "fit", fromCentre(pane, event.clientX, event.clientY));
});

const STEP = 80; // screen pixels per arrow key
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const KEYS = {
  "+": () => zoomBy(1.25), "=": () => zoomBy(1.25), "-": () => zoomBy(1 / 1.25), 0: () => setZoom("fit"),
  f: () => setZoom("fit"), o: () => setZoom(1), p: () => toggle("smooth"), m: () => toggle("loupe"), x: swap,
  s: () => setMode("slider"), g: () => setMode("grid"), b: () => setMode("blink"), d: () => setMode("difference"), v: () => setMode("overlay"),
  l: () => { view.map = MAPS[(MAPS.indexOf(view.map) + 1) % MAPS.length]; setMode("difference"); },
  n: () => toggle("measure"), h: () => toggle("histogram"), k: togglePin, backspace: () => removePin(view.pins.length - 1),
  e: (event) => setExposure(view.exposure + (event.shiftKey ? -STOP : STOP)), "[": () => setGain(view.gain / 2), "]": () => setGain(view.gain * 2),
  r: () => setReference(referenceKey() === entriesOnShow()[0].key ? "" : entriesOnShow()[0].key), c: copyMarkdown, a: () => ref("file").click(),
  "?": () => ref("help").showModal(),
};

function arrow([dx, dy], event) {
  const index = dividers.indexOf(event.target);
  if (index >= 0) setDivider(index, dividerAt(index) + (dx - dy) * (event.shiftKey ? 0.1 : 0.02));
  else if (event.shiftKey && view.loupe) moveSpot(dx, dy);
  else pan(-dx * STEP, -dy * STEP);
}

function actionFor(event) {
  if (ARROWS[event.key]) return () => arrow(ARROWS[event.key], event);
  const index = dividers.indexOf(event.target);
  if (index >= 0 && event.key === "Home") return () => setDivider(index, 0);
  if (index >= 0 && event.key === "End") return () => setDivider(index, 1);
  if (/^[1-9]$/.test(event.key)) return () => show(entries[event.key - 1]?.key);
  // A button keeps its own space bar.
  if (event.key === " " && view.mode === "blink" && !event.target.closest("button")) return () => hold(true);
  const name = event.key.toLowerCase();
  return Object.hasOwn(KEYS, name) ? () => KEYS[name](event) : null;
}

element.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !largest() || event.target.closest("select, input, dialog")) return;
  const action = actionFor(event);
  if (!action) return;
  event.preventDefault();
  action();
});
element.addEventListener("keyup", (event) => { if (event.key === " ") hold(false); });
