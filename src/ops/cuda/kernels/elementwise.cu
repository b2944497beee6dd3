// Loops over elements, sums over rows, losses, and look-ups.

#include "common.cuh"

template <class From, class To> __device__ void cast(const Args &a) {
    unsigned i = place();
    if (i < a.n[0]) ((To *)a.p[1])[i] = rounded<To>(widen(((const From *)a.p[0])[i]));
}
KERNEL(cast_f32_bf16) { cast<float, bf16>(a); }
KERNEL(cast_bf16_f32) { cast<bf16, float>(a); }

// p[3] = p[0] + bias p[1] of each of n[1] channels + residual p[2]; each of the latter may be missing.
template <class T> __device__ void finish(const Args &a) {
    unsigned i = place();
    if (i >= a.n[0]) return;
    float v = widen(((const T *)a.p[0])[i]);
    if (a.p[1]) v += ((const float *)a.p[1])[i % (unsigned)a.n[1]];
    if (a.p[2]) v += widen(((const T *)a.p[2])[i]);
    ((T *)a.p[3])[i] = rounded<T>(v);
}
FOR_BOTH(finish)

// Column sums of p[0] (n[0] rows, n[1] columns), a line of p[1] for each n[2] rows; with means p[2], of the squares of the
// distances from them. Blocks: (n[1] / COLUMNS, n[0] / n[2]), both rounded up.
template <class T> __device__ void column_sums(const Args &a) {
    const T *x = (const T *)a.p[0];
    const float *means = (const float *)a.p[2];
    float *out = (float *)a.p[1];
    __shared__ float sums[THREADS];
    unsigned rows = a.n[0], columns = a.n[1], t = threadIdx.x, column = blockIdx.x * COLUMNS + t % COLUMNS;
    unsigned first = blockIdx.y * (unsigned)a.n[2], last = min(first + (unsigned)a.n[2], rows);
    float sum = 0.0f;
    if (column < columns)
        for (unsigned row = first + t / COLUMNS; row < last; row += ROWS) {
            float v = widen(x[row * columns + column]), d = means ? v - means[column] : 0.0f;
            sum += means ? d * d : v;
        }
    sums[t] = sum;
    __syncthreads();
    if (t >= COLUMNS || column >= columns) return;
    for (unsigned row = 1; row < ROWS; row++) sum += sums[row * COLUMNS + t];
    out[blockIdx.y * columns + column] = sum;
}
FOR_BOTH(column_sums)

// p[1] = f[0] times the sum of the n[0] values p[0]: one block.
KERNEL(sum) {
    float sum = 0.0f;
    for (unsigned i = threadIdx.x; i < a.n[0]; i += THREADS) sum += ((const float *)a.p[0])[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *(float *)a.p[1] = sum * a.f[0];
}

// p[0] *= the number at p[1].
KERNEL(scale_by) {
    unsigned i = place();
    if (i < a.n[0]) ((float *)a.p[0])[i] *= *(const float *)a.p[1];
}

template <class T> __device__ void add_to(const Args &a) {
    unsigned i = place();
    T *target = (T *)a.p[0];
    if (i < a.n[0]) target[i] = rounded<T>(widen(target[i]) + widen(((const T *)a.p[1])[i]));
}
FOR_BOTH(add_to)

KERNEL(silu) {
    unsigned i = place();
    if (i >= a.n[0]) return;
    float x = ((const float *)a.p[0])[i];
    ((float *)a.p[1])[i] = x * sigmoid(x);
}

// p[1] *= the derivative at p[0].
KERNEL(silu_backward) {
    unsigned i = place();
    if (i < a.n[0]) ((float *)a.p[1])[i] *= silu_derivative(((const float *)a.p[0])[i]);
}

// Rows p[1] of the table p[0] with n[1] columns: p[2], n[0] elements.
KERNEL(embedding) {
    unsigned i = place(), columns = a.n[1];
    if (i >= a.n[0]) return;
    unsigned row = ((const unsigned *)a.p[1])[i / columns];
    ((float *)a.p[2])[i] = ((const float *)a.p[0])[row * columns + i % columns];
}

// The gradient p[2] of the table, n[0] elements, from that of its rows, p[0], n[2] of them, which p[1] names. A thread an
// element of the table, so that the order of the sum is fixed.
KERNEL(embedding_backward) {
    unsigned i = place(), columns = a.n[1];
    if (i >= a.n[0]) return;
    float sum = 0.0f;
    for (unsigned k = 0; k < a.n[2]; k++)
        if (((const unsigned *)a.p[1])[k] == i / columns) sum += ((const float *)a.p[0])[k * columns + i % columns];
    ((float *)a.p[2])[i] = sum;
}

// mean + exp(log variance / 2) noise: n[0] elements of p[2], n[1] channels; f[0], f[1] clamp the log-variance.
KERNEL(gaussian_sample) {
    unsigned i = place(), c = a.n[1];
    if (i >= a.n[0]) return;
    const float *m = (const float *)a.p[0] + i / c * 2 * c + i % c;
    ((float *)a.p[2])[i] = m[0] + expf(0.5f * fminf(fmaxf(m[c], a.f[0]), a.f[1])) * ((const float *)a.p[1])[i];
}

// The gradient p[3] of the moments from that of the sample, p[2].
KERNEL(gaussian_sample_backward) {
    unsigned i = place(), c = a.n[1];
    if (i >= a.n[0]) return;
    unsigned at = i / c * 2 * c + i % c;
    float v = ((const float *)a.p[0])[at + c], g = ((const float *)a.p[2])[i], noise = ((const float *)a.p[1])[i];
    float *out = (float *)a.p[3] + at;
    out[0] = g;
    out[c] = v < a.f[0] || v > a.f[1] ? 0.0f : g * noise * 0.5f * expf(0.5f * v);
}

// n[0] elements, n[1] of them an image: the gradient p[3] of f[0] times the sum of weight (p[0] - p[1])^2, and the sum's
// parts p[4], one a block. The weight of each image is in p[2], or 1.
KERNEL(squared_error) {
    float sum = 0.0f;
    for (unsigned i = place(); i < a.n[0]; i += gridDim.x * THREADS) {
        float d = ((const float *)a.p[0])[i] - ((const float *)a.p[1])[i];
        float weight = a.p[2] ? ((const float *)a.p[2])[i / (unsigned)a.n[1]] : 1.0f;
        ((float *)a.p[3])[i] = 2.0f * a.f[0] * weight * d;
        sum += weight * d * d;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) ((float *)a.p[4])[blockIdx.x] = sum;
}

// The same for the divergence of moments p[0] from N(0, 1): n[0] elements of n[1] channels; gradient p[1], parts p[2];
// f[1], f[2] clamp the log-variance.
KERNEL(gaussian_kl) {
    float sum = 0.0f;
    unsigned c = a.n[1];
    for (unsigned i = place(); i < a.n[0]; i += gridDim.x * THREADS) {
        const float *m = (const float *)a.p[0] + i / c * 2 * c + i % c;
        float *out = (float *)a.p[1] + i / c * 2 * c + i % c;
        float mean = m[0], v = m[c], clamped = fminf(fmaxf(v, a.f[1]), a.f[2]);
        sum += 0.5f * (mean * mean + expf(clamped) - 1.0f - clamped);
        out[0] = mean * a.f[0];
        out[c] = clamped == v ? 0.5f * (expf(v) - 1.0f) * a.f[0] : 0.0f;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) ((float *)a.p[2])[blockIdx.x] = sum;
}

// Of logits p[0] with n[0] classes and labels p[1]: the gradient p[2] of f[0] times the sum of cross-entropies, and each
// one, p[3]. A block an image.
KERNEL(cross_entropy) {
    unsigned classes = a.n[0], n = blockIdx.x, label = ((const unsigned *)a.p[1])[n];
    const float *z = (const float *)a.p[0] + n * classes;
    float *out = (float *)a.p[2] + n * classes, largest = -3.402823466e38f, sum = 0.0f;
    for (unsigned i = threadIdx.x; i < classes; i += THREADS) largest = fmaxf(largest, z[i]);
    largest = block_max(largest);
    for (unsigned i = threadIdx.x; i < classes; i += THREADS) sum += expf(z[i] - largest);
    sum = block_sum(sum);
    for (unsigned i = threadIdx.x; i < classes; i += THREADS)
        out[i] = a.f[0] * (expf(z[i] - largest) / sum - (i == label ? 1.0f : 0.0f));
    if (threadIdx.x == 0) ((float *)a.p[3])[n] = largest + logf(sum) - z[label];
}

// Of logits p[0] with n[0] classes and probabilities p[1]: f[0] f[1]^2 times the sum of KL(q || softmax(logits / f[1])), q =
// softmax(log probabilities / f[1]): its gradient p[2], and each image's divergence, times f[1]^2, p[3]. A block an image.
KERNEL(distillation) {
    unsigned classes = a.n[0], n = blockIdx.x;
    const float *z = (const float *)a.p[0] + n * classes, *p = (const float *)a.p[1] + n * classes;
    float *out = (float *)a.p[2] + n * classes, temperature = a.f[1];
    float largest_z = -3.402823466e38f, largest_p = largest_z, sum_z = 0.0f, sum_p = 0.0f, divergence = 0.0f;
    for (unsigned i = threadIdx.x; i < classes; i += THREADS) {
        largest_z = fmaxf(largest_z, z[i] / temperature);
        largest_p = fmaxf(largest_p, logf(p[i]) / temperature);
    }
    largest_z = block_max(largest_z), largest_p = block_max(largest_p);
    for (unsigned i = threadIdx.x; i < classes; i += THREADS) {
        sum_z += expf(z[i] / temperature - largest_z);
        sum_p += expf(logf(p[i]) / temperature - largest_p);
    }
    float log_z = largest_z + logf(block_sum(sum_z)), log_p = largest_p + logf(block_sum(sum_p));
    for (unsigned i = threadIdx.x; i < classes; i += THREADS) {
        float log_s = z[i] / temperature - log_z, log_q = logf(p[i]) / temperature - log_p, q = expf(log_q);
        if (q > 0.0f) divergence += q * (log_q - log_s);
        out[i] = a.f[0] * temperature * (expf(log_s) - q);
    }
    divergence = block_sum(divergence);
    if (threadIdx.x == 0) ((float *)a.p[3])[n] = temperature * temperature * divergence;
}
