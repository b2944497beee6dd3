// Batches made on the GPU: images gathered, normalized and, for students, augmented. The CPU's are in src/eval/augment.rs.

#include "common.cuh"

enum { NOTHING, COLOR, CROP, CUTOUT, FLIP, RESAMPLE };

// An image (size, size, 3) of a set: bytes with the value of each of 256 levels of three channels, or values.
template <class T> struct Picture {
    const T *pixels;
    const float *levels;
    int size;

    __device__ float level(unsigned char pixel, int c) const { return levels[c * 256 + pixel]; }
    __device__ float level(float pixel, int) const { return pixel; }

    // 0 outside.
    __device__ float at(int y, int x, int c) const {
        if (y < 0 || x < 0 || y >= size || x >= size) return 0.0f;
        return level(pixels[(y * size + x) * 3 + c], c);
    }

    // Bilinear, at the pixel's place on a grid [[g0, g1], [g2, g3]] around the middle.
    __device__ float resampled(const float *g, int y, int x, int c) const {
        float middle = (float)(size - 1) / 2.0f, dx = (float)x - middle, dy = (float)y - middle;
        float px = g[0] * dx + g[1] * dy + middle, py = g[2] * dx + g[3] * dy + middle;
        float left = floorf(px), top = floorf(py), right_part = px - left, bottom_part = py - top, sum = 0.0f;
        for (int k = 0; k < 4; k++) {
            float part = (k / 2 ? bottom_part : 1.0f - bottom_part) * (k % 2 ? right_part : 1.0f - right_part);
            sum += part * at((int)top + k / 2, (int)left + k % 2, c);
        }
        return sum;
    }

    // The image's value at a pixel after a change that moves pixels: p has the kind, then its numbers.
    __device__ float moved(const float *p, int y, int x, int c) const {
        switch ((int)p[0]) {
        case CROP: return at(y + (int)p[1], x + (int)p[2], c);
        case FLIP: return at(y, p[1] != 0.0f ? size - 1 - x : x, c);
        case RESAMPLE: return resampled(p + 1, y, x, c);
        case CUTOUT: {
            int side = (int)p[3], y0 = (int)p[1] - side / 2, x0 = (int)p[2] - side / 2;
            return y >= y0 && y < y0 + side && x >= x0 && x < x0 + side ? 0.0f : at(y, x, c);
        }
        default: return at(y, x, c);
        }
    }
};

// p[4], (B, n[0], n[0], 3): the images p[1] of p[0], with levels p[2] if they are bytes, changed by p[3], five numbers an
// image: a kind and its parameters. A block an image.
template <class T> __device__ void augment(const Args &a) {
    int size = (int)a.n[0], pixels = size * size;
    unsigned n = blockIdx.x;
    const float *p = (const float *)a.p[3] + n * 5;
    Picture<T> image = {(const T *)a.p[0] + (long long)((const unsigned *)a.p[1])[n] * pixels * 3, (const float *)a.p[2], size};
    float *out = (float *)a.p[4] + (long long)n * pixels * 3, total = 0.0f;
    bool color = (int)p[0] == COLOR;
    for (int i = threadIdx.x; i < pixels; i += THREADS) {
        float v[3];
        for (int c = 0; c < 3; c++) v[c] = image.moved(p, i / size, i % size, c);
        // Brightness and saturation.
        float mean = (v[0] + v[1] + v[2]) / 3.0f + p[1];
        for (int c = 0; c < 3; c++) {
            if (color) v[c] = (v[c] + p[1] - mean) * p[2] + mean;
            total += v[c];
            out[i * 3 + c] = v[c];
        }
    }
    if (!color) return; // the whole block
    // Contrast.
    float mean = block_sum(total) / (float)(pixels * 3);
    for (int i = threadIdx.x; i < pixels; i += THREADS)
        for (int c = 0; c < 3; c++) out[i * 3 + c] = (out[i * 3 + c] - mean) * p[3] + mean;
}
KERNEL(augment_u8) { augment<unsigned char>(a); }
KERNEL(augment_f32) { augment<float>(a); }
