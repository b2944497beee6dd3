// Updates of all parameters in one launch. p[0] is a table with a line a block: addresses of gradient, parameter and state
// (CHUNK elements of each, or what is left of a tensor), and the number of elements, last.

#include "common.cuh"

// p[1]: the sum of squares of each line's gradient; n[0] columns a line.
KERNEL(sum_of_squares) {
    const long long *line = (const long long *)a.p[0] + blockIdx.x * a.n[0];
    const float *g = (const float *)line[0];
    float sum = 0.0f;
    for (unsigned i = threadIdx.x; i < line[a.n[0] - 1]; i += THREADS) sum += g[i] * g[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) ((float *)a.p[1])[blockIdx.x] = sum;
}

// AdamW with clipping and the average of the weights; lines are (g, p, ema, m, v, count). p[1] is the squared norm of all
// gradients and p[2] the loss: where one is not finite, nothing changes.
KERNEL(adamw) {
    const long long *line = (const long long *)a.p[0] + blockIdx.x * 6;
    const float *g = (const float *)line[0];
    float *p = (float *)line[1], *ema = (float *)line[2], *m = (float *)line[3], *v = (float *)line[4];
    float norm = sqrtf(*(const float *)a.p[1]), loss = *(const float *)a.p[2];
    if (!isfinite(norm) || !isfinite(loss)) return;
    float beta1 = a.f[0], beta2 = a.f[1], decay = a.f[2], step = a.f[3], bias2 = a.f[4], eps = a.f[5], average = a.f[6];
    float scale = norm > a.f[7] ? a.f[7] / norm : 1.0f;
    for (unsigned i = threadIdx.x; i < line[5]; i += THREADS) {
        float gradient = g[i] * scale;
        float m1 = beta1 * m[i] + (1.0f - beta1) * gradient;
        float v1 = beta2 * v[i] + (1.0f - beta2) * gradient * gradient;
        float p1 = p[i] * decay - step * m1 / (sqrtf(v1) / bias2 + eps);
        m[i] = m1, v[i] = v1, p[i] = p1;
        ema[i] += (1.0f - average) * (p1 - ema[i]);
    }
}

// PyTorch's SGD; lines are (g, p, velocity, count); f: lr, momentum, weight decay.
KERNEL(sgd) {
    const long long *line = (const long long *)a.p[0] + blockIdx.x * 4;
    const float *g = (const float *)line[0];
    float *p = (float *)line[1], *v = (float *)line[2];
    for (unsigned i = threadIdx.x; i < line[3]; i += THREADS) {
        v[i] = a.f[1] * v[i] + (g[i] + a.f[2] * p[i]);
        p[i] -= a.f[0] * v[i];
    }
}
