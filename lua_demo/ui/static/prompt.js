// Gradio runs this once, when the component is mounted; `element`, `props`, `watch` and `trigger` are its arguments.
const ref = (name) => element.querySelector(`[data-ref="${name}"]`);
const text = ref("text"), note = ref("note"), buttons = [...element.querySelectorAll("[data-word]")];
const WORD = /[\p{L}\p{N}_'-]+/gu;

// The words that are meant; undefined for what the model does not know.
const meant = (said) => Object.hasOwn(props.meanings, said.toLowerCase()) ? props.meanings[said.toLowerCase()] : undefined;
const isFiller = (said) => meant(said)?.length === 0;
const said = () => text.value.match(WORD) ?? [];
const known = () => new Set(said().flatMap((word) => meant(word) ?? []));
// "no moon" is said with the word "moon", but it is no moon.
const taker = (word, words) => buttons.map((button) => button.dataset)
  .find((other) => other.word !== word && words.has(other.word) && other.adds.split(" ").includes(word));

function show() {
  const all = said(), words = known();
  const ignored = [...new Set(all.filter((word) => !meant(word)).map((word) => word.toLowerCase()))];
  for (const button of buttons) {
    button.setAttribute("aria-pressed", words.has(button.dataset.word) && !taker(button.dataset.word, words));
  }
  const nothing = all.length > 0 && words.size === 0;
  note.textContent = nothing ? "The model knows none of these words. Choose some below, or an example."
    : ignored.length ? `Not known to the model, ignored: ${ignored.join(", ")}` : "";
  note.classList.toggle("error", nothing);
  note.hidden = !note.textContent;
}

function keep() {
  props.value = text.value;
  show();
}

function write(words) {
  text.value = words;
  keep();
}

// Whatever means the word goes, with the "at the" before it and, if nothing else is said there, the "sky" after it;
// what it means besides stays.
function without(word) {
  const clauses = text.value.split(",").map((clause) => {
    const kept = [];
    for (const token of clause.match(/\S+/g) ?? []) {
      const rest = token.replace(WORD, (found) => {
        const meaning = meant(found) ?? [];
        return meaning.includes(word) ? meaning.filter((other) => other !== word).join(" ") : found;
      });
      if (rest === token || rest.match(WORD)) kept.push(rest);
      else while (kept.length && isFiller(kept.at(-1))) kept.pop();
    }
    const left = kept.join(" ");
    return left === clause.trim() || !kept.every(isFiller) ? left : "";
  });
  return clauses.filter(Boolean).join(", ");
}

function toggle({ ariaPressed, dataset: { word, adds } }) {
  const pressed = ariaPressed === "true", taken = taker(word, known());
  if (taken) return write(without(taken.word));
  for (const one of pressed ? [word] : adds.split(" ")) text.value = without(one);
  write(pressed ? text.value : [text.value, adds].filter(Boolean).join(", "));
}

element.addEventListener("click", ({ target }) => {
  const button = target.closest("button");
  if (!button) return;
  if (button.dataset.word) toggle(button);
  else write(button.textContent);
});
text.addEventListener("input", keep);
text.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  trigger("submit");
});
watch("value", () => {
  text.value = props.value ?? "";
  show();
});
text.value = props.value ?? "";
show();
