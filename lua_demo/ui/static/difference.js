// The difference of two pictures as they are displayed: only the visible pixels, at the screen's resolution.
const sheets = [0, 1].map(() => document.createElement("canvas").getContext("2d", { willReadFrequently: true }));

// Brightness of left minus right: orange where left is brighter, blue where right is.
const ORANGE = [255, 150, 40], BLUE = [60, 150, 255];

function paintDifference(pen, left, right, place) {
  const { width, height } = pen.canvas;
  const x = Math.max(0, place.left), y = Math.max(0, place.top);
  const wide = Math.min(width, Math.round(place.left + place.width)) - x, high = Math.min(height, Math.round(place.top + place.height)) - y;
  if (wide <= 0 || high <= 0) return;
  const [a, b] = [left, right].map((picture, i) => {
    if (sheets[i].canvas.width !== width || sheets[i].canvas.height !== height) Object.assign(sheets[i].canvas, { width, height });
    paint(sheets[i], picture, place);
    return sheets[i].getImageData(x, y, wide, high).data;
  });
  const result = pen.createImageData(wide, high);
  (view.map === "signed" ? signedDifference : colourDifference)(a, b, result.data, view.gain);
  pen.putImageData(result, x, y);
}

function colourDifference(a, b, result, gain) {
  for (let i = 0; i < result.length; i += 4) {
    result[i] = Math.abs(a[i] - b[i]) * gain; // a clamped array: what is over 255 is 255
    result[i + 1] = Math.abs(a[i + 1] - b[i + 1]) * gain;
    result[i + 2] = Math.abs(a[i + 2] - b[i + 2]) * gain;
    result[i + 3] = 255;
  }
}

function signedDifference(a, b, result, gain) {
  for (let i = 0; i < result.length; i += 4) {
    const brighter = 0.299 * (a[i] - b[i]) + 0.587 * (a[i + 1] - b[i + 1]) + 0.114 * (a[i + 2] - b[i + 2]);
    const amount = Math.min(1, (Math.abs(brighter) * gain) / 255), colour = brighter > 0 ? ORANGE : BLUE;
    result[i] = colour[0] * amount;
    result[i + 1] = colour[1] * amount;
    result[i + 2] = colour[2] * amount;
    result[i + 3] = 255;
  }
}
