// Metrics of a band of two pictures, in single precision, four pixels at a time: the innermost loops of metrics.js.
// metrics.wasm is this file, compiled; the command stands in ui/README.md.
typedef unsigned char byte;
typedef unsigned int word;
typedef float four __attribute__((vector_size(16), aligned(4)));

enum { REACH = 5, WINDOW = 2 * REACH + 1, MAPS = 4, LOW_REACH = 2, LOW_WINDOW = 2 * LOW_REACH + 1 };
static const float C1 = 0.01f * 255 * 0.01f * 255, C2 = 0.03f * 255 * 0.03f * 255, MIDDLE = 128;

// Gaussian windows, the middle first: 11 px of 1.5 px, 5 px of 1 px.
static const float W[REACH + 1] = {0.26601172f, 0.21300554f, 0.10936069f, 0.036000772f, 0.0075987581f, 0.0010283801f};
static const float LOW[LOW_REACH + 1] = {0.40261995f, 0.24420134f, 0.054488685f};

// Sum of the squared differences of red, green and blue of `count` pixels, at most 22,000: above, it may overflow.
word squared_error(const byte *a, const byte *b, int count) {
  word sum = 0;
  for (int i = 0; i < 4 * count; i += 1) {
    int difference = (i & 3) == 3 ? 0 : a[i] - b[i];
    sum += difference * difference;
  }
  return sum;
}

// The window over what `AT(0)` to `AT(10)` give.
#define WINDOWED                                                                                       \
  (W[0] * AT(5) + W[1] * (AT(4) + AT(6)) + W[2] * (AT(3) + AT(7)) + W[3] * (AT(2) + AT(8)) +           \
   W[4] * (AT(1) + AT(9)) + W[5] * (AT(0) + AT(10)))

static void mirror(float *line, int width) {
  for (int i = 1; i <= REACH; i += 1) {
    line[REACH - i] = line[REACH + i];
    line[REACH + width - 1 + i] = line[REACH + width - 1 - i];
  }
}

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

static inline four similarity(float *const *means, int i) {
  four x = *(four *)(means[0] + i), y = *(four *)(means[1] + i), zero = {0, 0, 0, 0};
  four variances = *(four *)(means[2] + i) - x * x - y * y, covariance = *(four *)(means[3] + i) - x * y;
  x += MIDDLE;
  y += MIDDLE;
  variances = __builtin_elementwise_max(variances, zero);
  return (2 * x * y + C1) * (2 * covariance + C2) / ((x * x + y * y + C1) * (variances + C2));
}

static int padded(int width) { return (width + 3) & ~3; }

// Length of `scratch` below.
int ssim_floats(int width) { return MAPS * (padded(width) * (WINDOW + 2) + 2 * REACH); }

// Sum of SSIM over `rows` rows of red, green and blue; REACH rows stand on either side. Values are counted from the
// middle of their range, which keeps small differences of large squares.
double ssim(const byte *a, const byte *b, int width, int rows, float *scratch) {
  const int side = padded(width); // what lies beyond `width` is computed and not counted
  float *lines[MAPS], *means[MAPS], *ring[MAPS][WINDOW], *spare = scratch;
  for (int map = 0; map < MAPS; map += 1) { // of a, b, a² + b², ab
    lines[map] = spare;
    means[map] = spare += side + 2 * REACH;
    for (int k = 0; k < WINDOW; k += 1) ring[map][k] = spare += side;
    spare += side;
  }
  double sum = 0;
  for (int channel = 0; channel < 3; channel += 1) {
    for (int row = 0; row < rows + 2 * REACH; row += 1) {
      const word *p = (const word *)a + row * width, *q = (const word *)b + row * width;
      for (int i = 0; i < width; i += 1) {
        lines[0][REACH + i] = (float)(int)(p[i] >> 8 * channel & 255) - MIDDLE;
        lines[1][REACH + i] = (float)(int)(q[i] >> 8 * channel & 255) - MIDDLE;
      }
      for (int i = REACH; i < REACH + width; i += 4) {
        four x = *(four *)(lines[0] + i), y = *(four *)(lines[1] + i);
        *(four *)(lines[2] + i) = x * x + y * y;
        *(four *)(lines[3] + i) = x * y;
      }
      for (int map = 0; map < MAPS; map += 1) {
        mirror(lines[map], width);
        across(lines[map], ring[map][row % WINDOW], width);
      }
      if (row < 2 * REACH) continue;
      for (int map = 0; map < MAPS; map += 1) {
        const float *window[WINDOW];
        for (int k = 0; k < WINDOW; k += 1) window[k] = ring[map][(row + 1 + k) % WINDOW];
        down(window, means[map], width);
      }
      four total = {0, 0, 0, 0};
      int i = 0;
      for (; i + 4 <= width; i += 4) total += similarity(means, i);
      for (int k = 0; k < width - i; k += 1) total[k] += similarity(means, i)[k];
      sum += (double)total[0] + total[1] + total[2] + total[3];
    }
  }
  return sum;
}

// Length of `scratch` below.
int energy_floats(int width) { return (2 * LOW_WINDOW + 1) * width + 2 * LOW_REACH; }

// Energy of the luma (ITU-R 601) above a Gaussian low-pass, summed over `rows` rows; LOW_REACH rows stand on either side.
double high_pass_energy(const byte *picture, int width, int rows, float *scratch) {
  float *lumas = scratch, *blurs = lumas + LOW_WINDOW * width, *line = blurs + LOW_WINDOW * width;
  double sum = 0;
  for (int row = 0; row < rows + 2 * LOW_REACH; row += 1) {
    const word *pixels = (const word *)picture + row * width;
    float *luma = lumas + row % LOW_WINDOW * width, *blur = blurs + row % LOW_WINDOW * width;
    for (int i = 0; i < width; i += 1) {
      word value = pixels[i];
      luma[i] = line[i + LOW_REACH] = 0.299f * (int)(value & 255) + 0.587f * (int)(value >> 8 & 255) + 0.114f * (int)(value >> 16 & 255);
    }
    for (int i = 0; i < LOW_REACH; i += 1) {
      line[i] = luma[0];
      line[width + LOW_REACH + i] = luma[width - 1];
    }
    for (int i = 0; i < width; i += 1)
      blur[i] = LOW[0] * line[i + 2] + LOW[1] * (line[i + 1] + line[i + 3]) + LOW[2] * (line[i] + line[i + 4]);
    if (row < 2 * LOW_REACH) continue;
    const float *r[LOW_WINDOW], *middle = lumas + (row + LOW_WINDOW - LOW_REACH) % LOW_WINDOW * width;
    for (int k = 0; k < LOW_WINDOW; k += 1) r[k] = blurs + (row + 1 + k) % LOW_WINDOW * width;
    float part[4] = {0, 0, 0, 0};
    for (int i = 0; i < width; i += 1) {
      float high = middle[i] - (LOW[0] * r[2][i] + LOW[1] * (r[1][i] + r[3][i]) + LOW[2] * (r[0][i] + r[4][i]));
      part[i & 3] += high * high;
    }
    sum += (double)part[0] + part[1] + part[2] + part[3];
  }
  return sum;
}
