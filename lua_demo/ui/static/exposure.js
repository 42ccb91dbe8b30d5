// Exposure: what is on the screen is brightened in linear light, as if the camera had let in more of it; the pixels stay as they are.
const MOST_STOPS = 6, STOP = 0.5;
const exposureName = `exposure-${Math.random().toString(36).slice(2)}`; // of this viewer's own filter
ref("filter").id = exposureName;

function setExposure(stops) {
  view.exposure = Math.min(MOST_STOPS, Math.max(-MOST_STOPS, stops));
  say(view.exposure ? `Exposure ${stopsText()}` : "Exposure as it is");
  redraw();
}
const stopsText = () => `${view.exposure > 0 ? "+" : view.exposure < 0 ? "−" : ""}${Math.abs(view.exposure)} EV`;

function setGain(gain) {
  view.gain = Math.min(MAX_GAIN, Math.max(1, Math.round(gain)));
  say(`Gain ${view.gain}`);
  redraw();
}

let exposed = null; // what is shown
function showExposure() {
  const on = view.exposure && view.mode !== "difference", now = `${view.exposure} ${Boolean(on)}`;
  if (exposed === now) return;
  exposed = now;
  for (const part of ref("filter").querySelectorAll("feFuncR, feFuncG, feFuncB")) part.setAttribute("slope", 2 ** view.exposure);
  element.style.setProperty("--exposure", on ? `url(#${exposureName})` : "none");
  ref("exposure").value = view.exposure;
  write(ref("stops"), stopsText());
}

ref("exposure").addEventListener("input", (event) => setExposure(Number(event.target.value)));
