// Gradio runs this once, when the component is mounted; `element`, `props` and `watch` are its arguments.
const line = element.querySelector(".line"), text = element.querySelector(".text"), clock = element.querySelector(".clock");
const fill = element.querySelector(".fill");
let since = null, reached = 0;

const tick = () => { clock.textContent = since === null ? "" : `${((performance.now() - since) / 1000).toFixed(1)} s`; };

function show() {
  const { state = "empty", text: words = "", done = 0, total = 0 } = props.value ?? {};
  const running = state === "busy";
  since = running ? since ?? performance.now() : null;
  // On a phone the line is below the controls: bring it into view when something starts, not while somebody looks around.
  const box = line.getBoundingClientRect(), begins = state === "waiting" && line.dataset.state !== "waiting";
  if (begins && (box.top < 0 || box.bottom > innerHeight)) line.scrollIntoView({ behavior: "smooth", block: "start" });
  line.dataset.state = state;
  text.textContent = words;
  reached = running && total ? Math.max(reached, done / total) : 0; // the steps of one stage do not undo another's
  fill.style.width = `${100 * reached}%`;
  tick();
}

setInterval(tick, 100);
watch("value", show);
show();
