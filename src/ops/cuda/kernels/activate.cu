// What stands between two layers of a student: activations of sums, poolings, and the factors of a batch's norm.

#include "common.cuh"

// p[2] = act(p[0] + p[1]), p[1] or none, n[0] elements, n[1] the activation; p[3], or none, is the sum itself.
template <class T> __device__ void activate(const Args &a) {
    unsigned i = place();
    if (i >= a.n[0]) return;
    T sum = ((const T *)a.p[0])[i];
    if (a.p[1]) sum = rounded<T>(widen(sum) + widen(((const T *)a.p[1])[i]));
    if (a.p[3]) ((T *)a.p[3])[i] = sum;
    ((T *)a.p[2])[i] = rounded<T>(activation(a.n[1], widen(sum)));
}
FOR_BOTH(activate)

// p[2] = p[1] times the derivative at p[0].
template <class T> __device__ void activate_backward(const Args &a) {
    unsigned i = place();
    if (i >= a.n[0]) return;
    float slope = derivative(a.n[1], widen(((const T *)a.p[0])[i]));
    ((T *)a.p[2])[i] = rounded<T>(slope * widen(((const T *)a.p[1])[i]));
}
FOR_BOTH(activate_backward)

// Which of 2 x 2 values, `row` elements from line to line and `c` from pixel to pixel, is the largest: the first of equals; NaN is larger.
template <class T> __device__ inline unsigned largest_of_four(const T *x, unsigned row, unsigned c) {
    unsigned best = 0;
    for (unsigned k = 1; k < 4; k++) {
        float value = widen(x[k / 2 * row + k % 2 * c]);
        if (value > widen(x[best / 2 * row + best % 2 * c]) || value != value) best = k;
    }
    return best;
}

// p[1], (B, n[1] / 2, n[2] / 2, n[3]): the largest of 2 x 2 pixels of p[0]; n[0] elements of p[1].
template <class T> __device__ void max_pool(const Args &a) {
    unsigned i = place(), h = a.n[1], w = a.n[2], c = a.n[3];
    if (i >= a.n[0]) return;
    unsigned ch = i % c, x = i / c % (w / 2), y = i / c / (w / 2) % (h / 2), n = i / c / (w / 2) / (h / 2);
    const T *from = (const T *)a.p[0] + ((n * h + 2 * y) * w + 2 * x) * c + ch;
    unsigned best = largest_of_four(from, w * c, c);
    ((T *)a.p[1])[i] = from[best / 2 * w * c + best % 2 * c];
}
FOR_BOTH(max_pool)

// The gradient p[2] of the input p[0] from that of the output, p[1]; n[0] elements of p[0].
template <class T> __device__ void max_pool_backward(const Args &a) {
    unsigned i = place(), h = a.n[1], w = a.n[2], c = a.n[3];
    if (i >= a.n[0]) return;
    unsigned ch = i % c, x = i / c % w, y = i / c / w % h, n = i / c / w / h, out = 0;
    bool taken = y / 2 < h / 2 && x / 2 < w / 2;
    if (taken) {
        const T *from = (const T *)a.p[0] + ((n * h + y / 2 * 2) * w + x / 2 * 2) * c + ch;
        taken = largest_of_four(from, w * c, c) == y % 2 * 2 + x % 2;
        out = ((n * (h / 2) + y / 2) * (w / 2) + x / 2) * c + ch;
    }
    ((T *)a.p[2])[i] = taken ? ((const T *)a.p[1])[out] : rounded<T>(0.0f);
}
FOR_BOTH(max_pool_backward)

// p[1], (B, n[2]): the means of n[1] pixels of p[0]; n[0] elements of p[1].
template <class T> __device__ void mean_pixels(const Args &a) {
    unsigned i = place(), pixels = a.n[1], c = a.n[2];
    if (i >= a.n[0]) return;
    const T *x = (const T *)a.p[0] + i / c * pixels * c + i % c;
    float sum = 0.0f;
    for (unsigned k = 0; k < pixels; k++) sum += widen(x[k * c]);
    ((float *)a.p[1])[i] = sum / (float)pixels;
}
FOR_BOTH(mean_pixels)

// The gradient p[1] of the input from that of the means, p[0]; n[0] elements of p[1].
template <class T> __device__ void mean_pixels_backward(const Args &a) {
    unsigned i = place(), pixels = a.n[1], c = a.n[2];
    if (i < a.n[0]) ((T *)a.p[1])[i] = rounded<T>(((const float *)a.p[0])[i / (pixels * c) * c + i % c] / (float)pixels);
}
FOR_BOTH(mean_pixels_backward)

// Of n[0] channels with means p[0] and variances p[1], gamma p[2] and beta p[3]: the norm's factors and offsets, p[4] (2, C);
// f[0] is the least variance.
KERNEL(batch_factors) {
    unsigned i = place(), c = a.n[0];
    if (i >= c) return;
    float *out = (float *)a.p[4];
    float factor = ((const float *)a.p[2])[i] / sqrtf(((const float *)a.p[1])[i] + a.f[0]);
    out[i] = factor;
    out[c + i] = ((const float *)a.p[3])[i] - ((const float *)a.p[0])[i] * factor;
}

// From the gradient p[4] of these (2, C): those of gamma and beta, p[5] and p[6], and the line p[7] (2, C) by which the
// input's follows from the input: with d the gradient of the factor, less the mean times that of the offset, the mean has
// the gradient -factor d_offset, and the variance -rstd^2 factor d / 2. f[1] is 1 / rows.
KERNEL(batch_factors_backward) {
    unsigned i = place(), c = a.n[0];
    if (i >= c) return;
    float mean = ((const float *)a.p[0])[i], rstd = 1.0f / sqrtf(((const float *)a.p[1])[i] + a.f[0]);
    float factor = ((const float *)a.p[2])[i] * rstd;
    float of_offset = ((const float *)a.p[4])[c + i], d = ((const float *)a.p[4])[i] - of_offset * mean;
    float q = -rstd * rstd * factor * d * a.f[1];
    ((float *)a.p[5])[i] = d * rstd;
    ((float *)a.p[6])[i] = of_offset;
    ((float *)a.p[7])[i] = q;
    ((float *)a.p[7])[c + i] = -factor * of_offset * a.f[1] - q * mean;
}

// p[2] = x q + r of p[0], n[0] elements of n[1] channels; q and r are p[1] (2, C).
template <class T> __device__ void channel_lines(const Args &a) {
    unsigned i = place(), c = a.n[1];
    if (i >= a.n[0]) return;
    const float *line = (const float *)a.p[1] + i % c;
    ((T *)a.p[2])[i] = rounded<T>(widen(((const T *)a.p[0])[i]) * line[0] + line[c]);
}
FOR_BOTH(channel_lines)

// p[0] += f[0] (p[1] - p[0]): a running average.
KERNEL(follow) {
    unsigned i = place();
    float *average = (float *)a.p[0];
    if (i < a.n[0]) average[i] += a.f[0] * (((const float *)a.p[1])[i] - average[i]);
}
