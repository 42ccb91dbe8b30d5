// The viewer's script: these files, one after the other, in one function that runs once with `element` (the box that holds
// viewer.html), `props` and `watch`. Gradio calls it when the component is mounted; a page without Gradio can do the same.
// `props.value` is {panes: [{key, label, detail, image: {url} | null}], pair: [left, right], state}; `watch("value", f)` calls f
// whenever it has changed. Text reaches the page through textContent only.
const ref = (name) => element.querySelector(`[data-ref="${name}"]`);
const all = (selector) => [...element.querySelectorAll(selector)];
const make = (tag, className = "") => Object.assign(document.createElement(tag), { className });
const press = (button, pressed) => button.setAttribute("aria-pressed", Boolean(pressed));
function write(node, text) {
  if (node.textContent !== text) node.textContent = text; // untouched text is neither laid out nor read out again
}
