// Metrics of a cell of two pictures, in single precision, four pixels at a time: the innermost loops of metrics.js.
// metrics.wasm is this file, compiled; the command stands in ui/README.md.
//
// A cell is at most CELL pixels wide and stands in memory of `stride` pixels a row, RGBA. Pointers are to its upper left corner with
// what a window reaches beyond it: so many rows and columns stand on every side.
typedef unsigned char byte;
typedef unsigned int word;
typedef float four __attribute__((vector_size(16), aligned(4)));

enum { CELL = 64, REACH = 5, WINDOW = 2 * REACH + 1, MAPS = 4, LOW_REACH = 2, LOW_WINDOW = 2 * LOW_REACH + 1 };
static const float C1 = 0.01f * 255 * 0.01f * 255, C2 = 0.03f * 255 * 0.03f * 255, MIDDLE = 128;

// Gaussian windows, the middle first: 11 px of 1.5 px, 5 px of 1 px.
static const float W[REACH + 1] = {0.26601172f, 0.21300554f, 0.10936069f, 0.036000772f, 0.0075987581f, 0.0010283801f};
static const float LOW[LOW_REACH + 1] = {0.40261995f, 0.24420134f, 0.054488685f};

// Sum of the squared differences of red, green and blue.
double squared_error(const byte *a, const byte *b, int stride, int width, int rows) {
  word sum = 0; // of 64 x 64 pixels it cannot overflow
  for (int row = 0; row < rows; row += 1, a += 4 * stride, b += 4 * stride)
    for (int i = 0; i < 4 * width; i += 1) {
      int difference = (i & 3) == 3 ? 0 : a[i] - b[i];
      sum += difference * difference;
    }
  return sum;
}

// The window over what `AT(0)` to `AT(10)` give.
#define WINDOWED                                                                                       \
  (W[0] * AT(5) + W[1] * (AT(4) + AT(6)) + W[2] * (AT(3) + AT(7)) + W[3] * (AT(2) + AT(8)) +           \
   W[4] * (AT(1) + AT(9)) + W[5] * (AT(0) + AT(10)))

static void across(const float *from, float *to, int width) {
  for (int i = 0; i < width; i += 4) {
#define AT(k) (*(const four *)(from + i + k))
    *(four *)(to + i) = WINDOWED;
#undef AT
  }
}

// One map at a time, and each row by a name: more would not stay in registers, and take three times as long.
static void down(const float *const *rows, float *to, int width) {
  const float *r0 = rows[0], *r1 = rows[1], *r2 = rows[2], *r3 = rows[3], *r4 = rows[4], *r5 = rows[5];
  const float *r6 = rows[6], *r7 = rows[7], *r8 = rows[8], *r9 = rows[9], *r10 = rows[10];
  for (int i = 0; i < width; i += 4) {
#define AT(k) (*(const four *)(r##k + i))
    *(four *)(to + i) = WINDOWED;
#undef AT
  }
}

// What lies beyond a cell's width, up to the next four, is computed and not counted.
static float lines[MAPS][CELL + 2 * REACH + 4], means[MAPS][CELL], ring[MAPS][WINDOW][CELL];

static inline four similarity(int i) {
  four x = *(four *)(means[0] + i), y = *(four *)(means[1] + i), zero = {0, 0, 0, 0};
  four variances = *(four *)(means[2] + i) - x * x - y * y, covariance = *(four *)(means[3] + i) - x * y;
  x += MIDDLE;
  y += MIDDLE;
  variances = __builtin_elementwise_max(variances, zero);
  return (2 * x * y + C1) * (2 * covariance + C2) / ((x * x + y * y + C1) * (variances + C2));
}

// Sum of SSIM over red, green and blue. Values are counted from the middle of their range, which keeps small differences of large
// squares. The maps are of a, b, a² + b², ab.
double ssim(const byte *a, const byte *b, int stride, int width, int rows) {
  double sum = 0;
  for (int channel = 0; channel < 3; channel += 1) {
    for (int row = 0; row < rows + 2 * REACH; row += 1) {
      const word *p = (const word *)a + row * stride, *q = (const word *)b + row * stride;
      for (int i = 0; i < width + 2 * REACH; i += 1) {
        lines[0][i] = (float)(int)(p[i] >> 8 * channel & 255) - MIDDLE;
        lines[1][i] = (float)(int)(q[i] >> 8 * channel & 255) - MIDDLE;
      }
      for (int i = 0; i < width + 2 * REACH; i += 4) {
        four x = *(four *)(lines[0] + i), y = *(four *)(lines[1] + i);
        *(four *)(lines[2] + i) = x * x + y * y;
        *(four *)(lines[3] + i) = x * y;
      }
      for (int map = 0; map < MAPS; map += 1) across(lines[map], ring[map][row % WINDOW], width);
      if (row < 2 * REACH) continue;
      for (int map = 0; map < MAPS; map += 1) {
        const float *window[WINDOW];
        for (int k = 0; k < WINDOW; k += 1) window[k] = ring[map][(row + 1 + k) % WINDOW];
        down(window, means[map], width);
      }
      four total = {0, 0, 0, 0};
      int i = 0;
      for (; i + 4 <= width; i += 4) total += similarity(i);
      for (int k = 0; k < width - i; k += 1) total[k] += similarity(i)[k];
      sum += (double)total[0] + total[1] + total[2] + total[3];
    }
  }
  return sum;
}

// Energy of the luma (ITU-R 601) above a Gaussian low-pass.
double high_pass_energy(const byte *picture, int stride, int width, int rows) {
  static float lumas[LOW_WINDOW][CELL + 2 * LOW_REACH], blurs[LOW_WINDOW][CELL];
  double sum = 0;
  for (int row = 0; row < rows + 2 * LOW_REACH; row += 1) {
    const word *pixels = (const word *)picture + row * stride;
    float *luma = lumas[row % LOW_WINDOW], *blur = blurs[row % LOW_WINDOW];
    for (int i = 0; i < width + 2 * LOW_REACH; i += 1) {
      word value = pixels[i];
      luma[i] = 0.299f * (int)(value & 255) + 0.587f * (int)(value >> 8 & 255) + 0.114f * (int)(value >> 16 & 255);
    }
    for (int i = 0; i < width; i += 1)
      blur[i] = LOW[0] * luma[i + 2] + LOW[1] * (luma[i + 1] + luma[i + 3]) + LOW[2] * (luma[i] + luma[i + 4]);
    if (row < 2 * LOW_REACH) continue;
    const float *r[LOW_WINDOW], *middle = lumas[(row + LOW_WINDOW - LOW_REACH) % LOW_WINDOW] + LOW_REACH;
    for (int k = 0; k < LOW_WINDOW; k += 1) r[k] = blurs[(row + 1 + k) % LOW_WINDOW];
    float part[4] = {0, 0, 0, 0};
    for (int i = 0; i < width; i += 1) {
      float high = middle[i] - (LOW[0] * r[2][i] + LOW[1] * (r[1][i] + r[3][i]) + LOW[2] * (r[0][i] + r[4][i]));
      part[i & 3] += high * high;
    }
    sum += (double)part[0] + part[1] + part[2] + part[3];
  }
  return sum;
}

// How many pixels have each value, added to what was counted since `fresh`: 256 words each of red, green, blue and luma, rounded.
const word *histogram(const byte *picture, int stride, int width, int rows, int fresh) {
  static word counts[4][256];
  if (fresh)
    for (int i = 0; i < 4 * 256; i += 1) counts[i / 256][i % 256] = 0;
  for (int row = 0; row < rows; row += 1, picture += 4 * stride)
    for (const byte *p = picture, *end = p + 4 * width; p < end; p += 4) {
      counts[0][p[0]] += 1;
      counts[1][p[1]] += 1;
      counts[2][p[2]] += 1;
      counts[3][(299 * p[0] + 587 * p[1] + 114 * p[2] + 500) / 1000] += 1;
    }
  return counts[0];
}
