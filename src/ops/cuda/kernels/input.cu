// What a convolution reads: one tensor or two joined along their channels, normalized, resampled; and the way back.

#include "common.cuh"

enum { KEEP, UPSAMPLE, POOL };

// The first arguments of all kernels here.
template <class T> struct Input {
    // (B, H, W, c0) and (B, H, W, c - c0).
    const T *x0, *x1;
    // (B, groups, 2): mean and 1 / std; or none.
    const float *statistics;
    // (C), (C), (B, 2C) or none.
    const float *gamma, *beta, *scale_shift;
    unsigned batch, height, width, c0, c, groups;
    int act, resample;
    unsigned out_height, out_width;

    __device__ explicit Input(const Args &a) {
        x0 = (const T *)a.p[0], x1 = (const T *)a.p[1];
        statistics = (const float *)a.p[2];
        gamma = (const float *)a.p[3], beta = (const float *)a.p[4], scale_shift = (const float *)a.p[5];
        batch = a.n[0], height = a.n[1], width = a.n[2], c0 = a.n[3], c = a.n[4];
        groups = a.n[5], act = a.n[6], resample = a.n[7]; // no groups: no norm
        out_height = resample == UPSAMPLE ? 2 * height : resample == POOL ? height / 2 : height;
        out_width = resample == UPSAMPLE ? 2 * width : resample == POOL ? width / 2 : width;
    }

    __device__ float at(unsigned pixel, unsigned ch) const {
        return ch < c0 ? widen(x0[pixel * c0 + ch]) : widen(x1[pixel * (c - c0) + ch - c0]);
    }

    // Mean and 1 / std: 0 and 1 of an input that is not normalized, only scaled and shifted.
    __device__ void moments(unsigned n, unsigned ch, float &mean, float &rstd) const {
        const float *m = statistics + (n * groups + ch / (c / groups)) * 2;
        mean = statistics ? m[0] : 0.0f, rstd = statistics ? m[1] : 1.0f;
    }

    // gamma (1 + scale).
    __device__ float factor(unsigned n, unsigned ch) const {
        return gamma[ch] * (1.0f + (scale_shift ? scale_shift[n * 2 * c + ch] : 0.0f));
    }

    // What is normalized is act(slope (x - mean) + offset): in this order a flat image leaves no noise around 0.
    __device__ void line(unsigned n, unsigned ch, float &mean, float &slope, float &offset) const {
        moments(n, ch, mean, slope);
        slope *= factor(n, ch);
        float scale = scale_shift ? scale_shift[n * 2 * c + ch] : 0.0f;
        float shift = scale_shift ? scale_shift[n * 2 * c + c + ch] : 0.0f;
        offset = beta[ch] * (1.0f + scale) + shift;
    }

    // The gradient that reaches a pixel before norm and activation, from that of the output.
    __device__ float gathered(const T *dy, unsigned n, unsigned y, unsigned x, unsigned ch) const {
        if (resample == KEEP) return widen(dy[((n * height + y) * width + x) * c + ch]);
        if (resample == POOL) {
            if (y / 2 >= out_height || x / 2 >= out_width) return 0.0f;
            return 0.25f * widen(dy[((n * out_height + y / 2) * out_width + x / 2) * c + ch]);
        }
        float sum = 0.0f;
        for (unsigned i = 0; i < 4; i++)
            sum += widen(dy[((n * out_height + 2 * y + i / 2) * out_width + 2 * x + i % 2) * c + ch]);
        return sum;
    }
};

// Mean and 1 / std of each group. Blocks: (groups / n[8] rounded up, B); a block takes n[8] groups, at most COLUMNS.
template <class T> __device__ void statistics(const Args &a) {
    Input<T> in(a);
    float *out = (float *)a.p[6];
    float eps = a.f[0];
    __shared__ float sums[THREADS], means[COLUMNS];
    unsigned each = in.c / in.groups, group = blockIdx.x * (unsigned)a.n[8], n = blockIdx.y, t = threadIdx.x;
    unsigned count = min((unsigned)a.n[8], in.groups - group), channels = count * each, first = group * each;
    // A thread's values are all of one group: of one channel, or of the block's one group.
    unsigned columns = min(channels, (unsigned)THREADS), rows = THREADS / columns, pixels = in.height * in.width;
    unsigned width = count == 1 ? columns : each;
    for (int pass = 0; pass < 2; pass++) {
        float sum = 0.0f;
        if (t / columns < rows) {
            float mean = pass ? means[t % columns / width] : 0.0f;
            for (unsigned ch = t % columns; ch < channels; ch += columns)
                for (unsigned p = t / columns; p < pixels; p += rows) {
                    float v = in.at(n * pixels + p, first + ch) - mean;
                    sum += pass ? v * v : v;
                }
        }
        sums[t] = sum;
        __syncthreads();
        if (t < columns) {
            for (unsigned row = 1; row < rows; row++) sum += sums[row * columns + t];
            sums[t] = sum;
        }
        __syncthreads();
        if (t < count) {
            float total = 0.0f;
            for (unsigned i = 0; i < width; i++) total += sums[t * width + i];
            total /= (float)(pixels * each);
            if (!pass) means[t] = total;
            float *to = out + (n * in.groups + group + t) * 2;
            to[pass] = pass ? 1.0f / sqrtf(total + eps) : total;
        }
        __syncthreads();
    }
}
FOR_BOTH(statistics)

// What is convolved: one thread an element of p[6].
template <class T> __device__ void prepare(const Args &a) {
    Input<T> in(a);
    T *out = (T *)a.p[6];
    unsigned i = place();
    if (i >= in.batch * in.out_height * in.out_width * in.c) return;
    unsigned ch = i % in.c, q = i / in.c, x = q % in.out_width, y = q / in.out_width % in.out_height;
    unsigned n = q / (in.out_width * in.out_height);
    float mean = 0.0f, slope = 1.0f, offset = 0.0f;
    if (in.groups) in.line(n, ch, mean, slope, offset);
    float sum = 0.0f;
    if (in.resample == POOL) {
        for (unsigned k = 0; k < 4; k++) {
            unsigned pixel = (n * in.height + 2 * y + k / 2) * in.width + 2 * x + k % 2;
            sum += 0.25f * activation(in.act, slope * (in.at(pixel, ch) - mean) + offset);
        }
    } else {
        unsigned half = in.resample == UPSAMPLE ? 2 : 1;
        sum = in.at((n * in.height + y / half) * in.width + x / half, ch);
        if (in.groups) sum = activation(in.act, slope * (sum - mean) + offset);
    }
    out[i] = rounded<T>(sum);
}
FOR_BOTH(prepare)

// For each image and channel the sums over pixels of du, the gradient before the activation, and of du x_hat: p[7],
// (B, 2, C), from p[6], the gradient of what is convolved. Blocks: (C / COLUMNS rounded up, B).
template <class T> __device__ void norm_sums(const Args &a) {
    Input<T> in(a);
    const T *dy = (const T *)a.p[6];
    float *out = (float *)a.p[7];
    __shared__ float sums[2][THREADS];
    unsigned t = threadIdx.x, ch = blockIdx.x * COLUMNS + t % COLUMNS, n = blockIdx.y, pixels = in.height * in.width;
    float du_sum = 0.0f, xhat_sum = 0.0f;
    if (ch < in.c) {
        float mean, slope, offset, rstd;
        in.line(n, ch, mean, slope, offset);
        in.moments(n, ch, mean, rstd);
        for (unsigned p = t / COLUMNS; p < pixels; p += ROWS) {
            float x = in.at(n * pixels + p, ch);
            float du = derivative(in.act, slope * (x - mean) + offset) * in.gathered(dy, n, p / in.width, p % in.width, ch);
            du_sum += du;
            xhat_sum += du * (x - mean) * rstd;
        }
    }
    sums[0][t] = du_sum, sums[1][t] = xhat_sum;
    __syncthreads();
    if (t >= COLUMNS || ch >= in.c) return;
    for (unsigned row = 1; row < ROWS; row++) {
        du_sum += sums[0][row * COLUMNS + t];
        xhat_sum += sums[1][row * COLUMNS + t];
    }
    out[(n * 2 + 0) * in.c + ch] = du_sum;
    out[(n * 2 + 1) * in.c + ch] = xhat_sum;
}
FOR_BOTH(norm_sums)

// From these sums, p[6], for each image and channel: p[7] (B, 3, C), with which dx = p du + q x + r; p[8] (B, 2, C), the
// image's part of the gradients of gamma and beta; p[9] (B, 2C) or none, the gradient of the scale and shift.
KERNEL(norm_factors) {
    Input<float> in(a);
    const float *sums = (const float *)a.p[6];
    float *factors = (float *)a.p[7], *parts = (float *)a.p[8], *scale_shift = (float *)a.p[9];
    unsigned i = place(), c = in.c;
    if (i >= in.batch * c) return;
    unsigned n = i / c, ch = i % c, each = c / in.groups, first = ch / each * each;
    float m1 = 0.0f, m2 = 0.0f;
    for (unsigned k = first; k < first + each; k++) {
        m1 += in.factor(n, k) * sums[n * 2 * c + k];
        m2 += in.factor(n, k) * sums[n * 2 * c + c + k];
    }
    float count = (float)(in.height * in.width * each), mean, rstd;
    in.moments(n, ch, mean, rstd);
    if (!in.statistics) m1 = m2 = 0.0f; // constants do not move with the input
    float q = -rstd * rstd * m2 / count;
    factors[n * 3 * c + ch] = rstd * in.factor(n, ch);
    factors[n * 3 * c + c + ch] = q;
    factors[n * 3 * c + 2 * c + ch] = -rstd * m1 / count - q * mean;
    float du = sums[n * 2 * c + ch], du_xhat = sums[n * 2 * c + c + ch];
    float scale = 1.0f + (in.scale_shift ? in.scale_shift[n * 2 * c + ch] : 0.0f);
    parts[n * 2 * c + ch] = scale * du_xhat;
    parts[n * 2 * c + c + ch] = scale * du;
    if (scale_shift) {
        scale_shift[n * 2 * c + ch] = in.gamma[ch] * du_xhat + in.beta[ch] * du;
        scale_shift[n * 2 * c + c + ch] = du;
    }
}

// The gradients of the parts, p[8] and p[9] (or none), from that of what is convolved, p[6], and, of a norm, the factors
// p[7]: one thread an element of the input.
template <class T> __device__ void input_gradient(const Args &a) {
    Input<T> in(a);
    const T *dy = (const T *)a.p[6];
    const float *factors = (const float *)a.p[7];
    T *dx0 = (T *)a.p[8], *dx1 = (T *)a.p[9];
    unsigned i = place(), c = in.c;
    if (i >= in.batch * in.height * in.width * c) return;
    unsigned ch = i % c, pixel = i / c, x = pixel % in.width, y = pixel / in.width % in.height;
    unsigned n = pixel / (in.width * in.height);
    float gradient = in.gathered(dy, n, y, x, ch);
    if (in.groups) {
        float mean, slope, offset, value = in.at(pixel, ch);
        in.line(n, ch, mean, slope, offset);
        const float *f = factors + n * 3 * c + ch;
        gradient = f[0] * derivative(in.act, slope * (value - mean) + offset) * gradient + f[c] * value + f[2 * c];
    }
    if (ch < in.c0) {
        if (dx0) dx0[pixel * in.c0 + ch] = rounded<T>(gradient);
    } else if (dx1) {
        dx1[pixel * (c - in.c0) + ch - in.c0] = rounded<T>(gradient);
    }
}
FOR_BOTH(input_gradient)
