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

// Words that can begin a text; of the other links only what follows stays: "among mountains" alone is "mountains".
const BEGINS = ["at", "in", "on", "under", "early"];
const plain = (token) => token?.toLowerCase().match(WORD)?.[0];
const isLink = (token) => props.links.includes(plain(token));
const saysNothing = (phrase) => phrase.every((token) => (token.match(WORD) ?? []).every(isFiller));

// "a lake | among snowy mountains | at noon": each phrase begins with the word that links it to the one before.
function phrases(clause) {
  const found = [];
  for (const token of clause.match(/\S+/g) ?? []) {
    if (!found.length || isLink(token)) found.push([]);
    found.at(-1).push(token);
  }
  return found;
}

// The phrase without the word; empty where nothing else is said in it. What its tokens mean besides stays, and so do
// the adjectives of a place: "a rocky canyon" is then "a rocky landscape".
function strip(phrase, word) {
  const kept = [];
  let headless = false;
  for (const token of phrase) {
    const rest = token.replace(WORD, (found) => {
      const meaning = meant(found) ?? [];
      return meaning.includes(word) ? meaning.filter((other) => other !== word).join(" ") : found;
    });
    const gone = rest !== token && !rest.match(WORD);
    if (!gone) kept.push(rest);
    headless = gone && props.places.includes(word);
  }
  if (kept.join(" ") === phrase.join(" ")) return phrase;
  if (saysNothing(kept)) return [];
  if (headless) kept.push("landscape");
  return kept.map((token, k) => (/^an?$/i.test(token) ? `${token[0]}${/^[aeiou]/i.test(kept[k + 1]) ? "n" : ""}` : token));
}

// With a phrase go those beside it that say nothing themselves: the "in the sky" of "clouds in the sky".
function without(word) {
  const clauses = text.value.split(",").map((clause) => {
    const before = phrases(clause), left = before.map((phrase) => strip(phrase, word));
    if (left.every((phrase, k) => phrase === before[k])) return clause.trim();
    const spread = (order) => order.reduce((gone, k) => {
      if (left[k].length && (!gone || !saysNothing(left[k]))) return false;
      left[k] = [];
      return true;
    }, false);
    spread([...left.keys()]);
    spread([...left.keys()].reverse());
    if (!left[0].length) {
      const first = left.find((phrase) => phrase.length);
      if (first && isLink(first[0]) && !BEGINS.includes(plain(first[0]))) first.shift();
    }
    return left.flat().join(" ");
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
