// Attention of one image and head at a time, in f32, without a table of weights: a thread goes over the keys for its query
// (Rabe and Staats 2021; the gradient as in Dao et al. 2022, appendix B.2).
//
// p[0] is (B, tokens, 3, heads, d); n: tokens, heads, d. Blocks: (B heads, tokens / QUERIES rounded up).

#include "common.cuh"

#define QUERIES 64
#define KEYS 32

// D: the largest d that fits; what is beyond d is zero.
template <class T, int D> struct Head {
    unsigned tokens, heads, d, image, head;

    __device__ explicit Head(const Args &a) {
        tokens = a.n[0], heads = a.n[1], d = a.n[2], image = blockIdx.x / heads, head = blockIdx.x % heads;
    }

    // Row `token` of queries (0), keys (1) or values (2) in a tensor like qkv.
    template <class P> __device__ P *row(P *qkv, unsigned token, unsigned part) const {
        return qkv + ((image * tokens + token) * 3 + part) * heads * d + head * d;
    }

    // That of a tensor like the output.
    template <class P> __device__ P *out_row(P *out, unsigned token) const {
        return out + (image * tokens + token) * heads * d + head * d;
    }

    __device__ void load(const T *from, float *to) const {
#pragma unroll
        for (int k = 0; k < D; k++) to[k] = k < d ? widen(from[k]) : 0.0f;
    }

    __device__ void store(const float *from, float factor, T *to) const {
#pragma unroll
        for (int k = 0; k < D; k++)
            if (k < d) to[k] = rounded<T>(from[k] * factor);
    }
};

template <int D> __device__ inline float dot(const float *x, const float *y) {
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < D; k++) sum += x[k] * y[k];
    return sum;
}

template <int D> __device__ inline void add(float *to, float factor, const float *x) {
#pragma unroll
    for (int k = 0; k < D; k++) to[k] += factor * x[k];
}

// p[1]: the output; p[2] (B heads, tokens): the logarithm of each query's sum of exponentials.
template <class T, int D> __device__ void attention(const Args &a) {
    Head<T, D> at(a);
    const T *qkv = (const T *)a.p[0];
    __shared__ float keys[KEYS][D], values[KEYS][D];
    unsigned token = blockIdx.y * QUERIES + threadIdx.x, t = threadIdx.x;
    float q[D], out[D], scale = 1.0f / sqrtf((float)at.d), largest = -3.402823466e38f, sum = 0.0f;
    if (token < at.tokens) at.load(at.row(qkv, token, 0), q);
#pragma unroll
    for (int k = 0; k < D; k++) out[k] = 0.0f;
    for (unsigned first = 0; first < at.tokens; first += KEYS) {
        unsigned count = min((unsigned)KEYS, at.tokens - first);
        __syncthreads();
        if (t < count) at.load(at.row(qkv, first + t, 1), keys[t]);
        if (t >= KEYS && t - KEYS < count) at.load(at.row(qkv, first + t - KEYS, 2), values[t - KEYS]);
        __syncthreads();
        if (token >= at.tokens) continue;
#pragma unroll 1
        for (unsigned j = 0; j < count; j++) {
            float score = scale * dot<D>(q, keys[j]);
            if (score > largest) {
                float shrink = expf(largest - score);
                sum *= shrink;
#pragma unroll
                for (int k = 0; k < D; k++) out[k] *= shrink;
                largest = score;
            }
            float weight = expf(score - largest);
            sum += weight;
            add<D>(out, weight, values[j]);
        }
    }
    if (token >= at.tokens) return;
    at.store(out, 1.0f / sum, at.out_row((T *)a.p[1], token));
    ((float *)a.p[2])[blockIdx.x * at.tokens + token] = largest + logf(sum);
}

// The gradient of the queries: p[1] output, p[2] logarithms, p[3] gradient of the output, p[4] gradient of qkv, p[5]
// (B heads, tokens) for each query's sum of gradient x output.
template <class T, int D> __device__ void attention_queries(const Args &a) {
    Head<T, D> at(a);
    const T *qkv = (const T *)a.p[0];
    __shared__ float keys[KEYS][D], values[KEYS][D];
    unsigned token = blockIdx.y * QUERIES + threadIdx.x, t = threadIdx.x, place = blockIdx.x * at.tokens + token;
    float q[D], g[D], dq[D], scale = 1.0f / sqrtf((float)at.d), logarithm = 0.0f, delta = 0.0f;
    if (token < at.tokens) {
        at.load(at.out_row((const T *)a.p[1], token), q);
        at.load(at.out_row((const T *)a.p[3], token), g);
        delta = dot<D>(q, g);
        ((float *)a.p[5])[place] = delta;
        logarithm = ((const float *)a.p[2])[place];
        at.load(at.row(qkv, token, 0), q);
    }
#pragma unroll
    for (int k = 0; k < D; k++) dq[k] = 0.0f;
    for (unsigned first = 0; first < at.tokens; first += KEYS) {
        unsigned count = min((unsigned)KEYS, at.tokens - first);
        __syncthreads();
        if (t < count) at.load(at.row(qkv, first + t, 1), keys[t]);
        if (t >= KEYS && t - KEYS < count) at.load(at.row(qkv, first + t - KEYS, 2), values[t - KEYS]);
        __syncthreads();
        if (token >= at.tokens) continue;
#pragma unroll 1
        for (unsigned j = 0; j < count; j++) {
            float weight = expf(scale * dot<D>(q, keys[j]) - logarithm);
            add<D>(dq, weight * (dot<D>(g, values[j]) - delta), keys[j]);
        }
    }
    if (token < at.tokens) at.store(dq, scale, at.row((T *)a.p[4], token, 0));
}

// Those of keys (blockIdx.z 0) and values (1), a thread a key; after `attention_queries`, with the same arguments.
template <class T, int D> __device__ void attention_keys(const Args &a) {
    Head<T, D> at(a);
    const T *qkv = (const T *)a.p[0];
    __shared__ float queries[KEYS][D], gradients[KEYS][D], logarithms[KEYS], deltas[KEYS];
    unsigned token = blockIdx.y * QUERIES + threadIdx.x, t = threadIdx.x;
    float key[D], value[D], found[D], scale = 1.0f / sqrtf((float)at.d);
    bool of_values = blockIdx.z;
    if (token < at.tokens) {
        at.load(at.row(qkv, token, 1), key);
        at.load(at.row(qkv, token, 2), value);
    }
#pragma unroll
    for (int k = 0; k < D; k++) found[k] = 0.0f;
    for (unsigned first = 0; first < at.tokens; first += KEYS) {
        unsigned count = min((unsigned)KEYS, at.tokens - first);
        __syncthreads();
        if (t < count) {
            at.load(at.row(qkv, first + t, 0), queries[t]);
            logarithms[t] = ((const float *)a.p[2])[blockIdx.x * at.tokens + first + t];
            deltas[t] = ((const float *)a.p[5])[blockIdx.x * at.tokens + first + t];
        }
        if (t >= KEYS && t - KEYS < count) at.load(at.out_row((const T *)a.p[3], first + t - KEYS), gradients[t - KEYS]);
        __syncthreads();
        if (token >= at.tokens) continue;
#pragma unroll 1
        for (unsigned i = 0; i < count; i++) {
            float weight = expf(scale * dot<D>(queries[i], key) - logarithms[i]);
            if (of_values) add<D>(found, weight, gradients[i]);
            else add<D>(found, weight * (dot<D>(gradients[i], value) - deltas[i]), queries[i]);
        }
    }
    if (token < at.tokens) at.store(found, of_values ? 1.0f : scale, at.row((T *)a.p[4], token, of_values ? 2 : 1));
}

#define HEAD_KERNEL(name, d)                                                                                       \
    extern "C" __global__ void __launch_bounds__(QUERIES) name##_##d##_f32(const Args a) { name<float, d>(a); }    \
    extern "C" __global__ void __launch_bounds__(QUERIES) name##_##d##_bf16(const Args a) { name<bf16, d>(a); }
#define HEAD_KERNELS(name) HEAD_KERNEL(name, 32) HEAD_KERNEL(name, 64) HEAD_KERNEL(name, 128)
HEAD_KERNELS(attention)
HEAD_KERNELS(attention_queries)
HEAD_KERNELS(attention_keys)
