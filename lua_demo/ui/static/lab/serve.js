// Answers {id, kind, ...}: each question in its turn, but one that was withdrawn ({withdraw: id}) is not finished.
const withdrawn = new Set(), SLICE_MS = 12;

const bell = new MessageChannel(), waiting = [];
bell.port1.onmessage = () => waiting.shift()();
const pause = () => new Promise((go) => { waiting.push(go); bell.port2.postMessage(0); });

async function finish(id, steps) {
  for (let since = performance.now(); ;) {
    const step = steps.next();
    if (step.done) return step.value;
    if (performance.now() - since < SLICE_MS) continue;
    await pause(); // messages are heard now
    if (withdrawn.has(id)) throw new Error("withdrawn");
    since = performance.now();
  }
}

const ANSWERS = {
  async measure({ id, picture, reference, crop, wanted }) {
    const a = await open(picture, reference), b = reference && await open(reference, picture), answer = {};
    const start = performance.now();
    if (b) {
      answer.psnr = await finish(id, psnr(a, b, crop));
      answer.ssim = await finish(id, ssim(a, b, crop));
      answer.sharpness = await finish(id, sharpness(a, b, crop));
    }
    if (wanted.histogram) answer.histogram = await finish(id, histogram(a, crop));
    return { ...answer, milliseconds: performance.now() - start };
  },
  async flip({ id, picture, reference, frame, tile }) {
    const pair = [await open(picture, reference), await open(reference, picture)];
    return finish(id, flipTile(...pair, frame, tile));
  },
  async pixels({ picture, points }) {
    return pixelsAt(await open(picture), points);
  },
};

let last = Promise.resolve();
onmessage = ({ data }) => {
  if (data.budget) budget = data.budget;
  else if (data.withdraw) withdrawn.add(data.withdraw);
  else last = last.then(() => answer(data));
};

async function answer(question) {
  const { id, kind } = question;
  try {
    if (withdrawn.has(id)) throw new Error("withdrawn");
    postMessage({ id, answer: await ANSWERS[kind](question) });
  } catch (error) {
    postMessage({ id, error: error.message });
  }
  withdrawn.delete(id);
}
