// The viewer's script: these files, one after the other, in one function that runs once with `element` (the box that holds
// viewer.html), `props` and `watch`. Gradio calls it when the component is mounted; a page without Gradio can do the same.
// `props.value` is {panes: [{key, label, detail, image: {url} | null}], pair: [left, right], state}; `watch("value", f)` calls f
// whenever it has changed. Text reaches the page through textContent only.
const refs = new Map(); // what has a data-ref is never replaced
function ref(name) {
  if (!refs.has(name)) refs.set(name, element.querySelector(`[data-ref="${name}"]`));
  return refs.get(name);
}
const all = (selector) => [...element.querySelectorAll(selector)];
const make = (tag, className = "") => Object.assign(document.createElement(tag), { className });
const press = (button, pressed) => {
  if (button.getAttribute("aria-pressed") !== String(Boolean(pressed))) button.setAttribute("aria-pressed", Boolean(pressed));
};
function withChildren(node, children) {
  node.append(...children);
  return node;
}
function write(node, text) {
  if (node.textContent !== text) node.textContent = text; // untouched text is neither laid out nor read out again
}

// Read out to those who do not see what happened; `visible` where it is to be read by all.
let saying = 0;
function say(text, visible = false) {
  ref("said").classList.toggle("visible", visible);
  write(ref("said"), "");
  write(ref("said"), text); // the same words again are told again
  clearTimeout(saying);
  if (visible) saying = setTimeout(() => ref("said").classList.remove("visible"), 8000);
}
