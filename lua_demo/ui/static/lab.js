// Questions to the workers of lab/, which hold pictures of their own and compute beside the page. LAB_SOURCE is their script.
const LANES_OF_LAB = Math.max(2, Math.min(4, (navigator.hardwareConcurrency || 2) - 1)); // one core is left to the page, if there are three
const KEPT_PIXELS = BUDGET / 2 / LANES_OF_LAB;
const lanes = [], unanswered = new Map(); // id -> {done, failed}
let questions = 0;

function lane(index) {
  return lanes[index % LANES_OF_LAB] ??= openLane();
}

function openLane() {
  const url = URL.createObjectURL(new Blob([LAB_SOURCE], { type: "text/javascript" })), worker = new Worker(url);
  worker.addEventListener("message", ({ data: { id, answer, error } }) => {
    const { done, failed } = unanswered.get(id);
    unanswered.delete(id);
    if (error) failed(new Error(error));
    else done(answer);
  });
  worker.postMessage({ budget: KEPT_PIXELS });
  return worker;
}

// {id, answer}: the same lane answers in order. An answer that is withdrawn fails.
function ask(index, kind, given) {
  const id = (questions += 1), answer = new Promise((done, failed) => unanswered.set(id, { done, failed }));
  lane(index).postMessage({ id, kind, ...given });
  return { id, lane: index, answer };
}
const withdraw = (question) => unanswered.has(question.id) && lane(question.lane).postMessage({ withdraw: question.id });

const sourceOf = (entry) => {
  const { id, blob } = pictureOf(entry);
  return { url: id, blob };
};

// Trouble is told once in the console; a question that was withdrawn is none.
const grumble = (error) => { if (error.message !== "withdrawn") console.warn("CompareViewer:", error); };
