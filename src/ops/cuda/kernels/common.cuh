// What all kernels share: their one argument, the two types of elements, and sums over a block.
//
// Only the plainest part of CUDA is used (no shuffles, no vendor headers), so that scripts/cuda_emulator.cpp can run the same
// source on a processor.

#pragma once

typedef unsigned short bf16;

// The argument of every kernel: addresses (0 for none), sizes and numbers, in the order that the kernel names them.
struct Args {
    void *p[12];
    long long n[12];
    float f[8];
};

// Threads of a block, where a kernel says nothing else.
#define THREADS 256
// Columns that a block reads side by side.
#define COLUMNS 32
#define ROWS (THREADS / COLUMNS)

__device__ inline float widen(float x) { return x; }

__device__ inline float widen(bf16 x) { return __uint_as_float((unsigned)x << 16); }

template <class T> __device__ inline T rounded(float x);

template <> __device__ inline float rounded<float>(float x) { return x; }

// To nearest, ties to even; NaN stays NaN.
template <> __device__ inline bf16 rounded<bf16>(float x) {
    unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (bf16)(bits >> 16 | 0x40u);
    return (bf16)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

__device__ inline unsigned place() { return blockIdx.x * blockDim.x + threadIdx.x; }

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

__device__ inline float silu_derivative(float x) {
    float s = sigmoid(x);
    return s * (1.0f + x * (1.0f - s));
}

enum { IDENTITY, RELU, SILU, GELU };

// 2 sqrt(2 / pi) (u + 0.044715 u^3): GELU in its tanh form is u sigmoid of it.
__device__ inline float gelu_argument(float u) {
    return 1.595769f * (u + 0.044715f * u * u * u);
}

__device__ inline float activation(int act, float u) {
    if (act == GELU) return u * sigmoid(gelu_argument(u));
    if (act == RELU) return u > 0.0f ? u : 0.0f * u; // which keeps a NaN visible
    return act == SILU ? u * sigmoid(u) : u;
}

__device__ inline float derivative(int act, float u) {
    if (act == GELU) {
        float s = sigmoid(gelu_argument(u));
        return s + u * s * (1.0f - s) * 1.595769f * (1.0f + 3.0f * 0.044715f * u * u);
    }
    return act == SILU ? silu_derivative(u) : act == RELU ? (u > 0.0f ? 1.0f : 0.0f) : 1.0f;
}

// The sum over all threads of a block of THREADS, given to each of them.
__device__ inline float block_sum(float value) {
    __shared__ float sums[THREADS];
    __syncthreads();
    sums[threadIdx.x] = value;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    return sums[0];
}

__device__ inline float block_max(float value) {
    __shared__ float values[THREADS];
    __syncthreads();
    values[threadIdx.x] = value;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) values[threadIdx.x] = fmaxf(values[threadIdx.x], values[threadIdx.x + half]);
        __syncthreads();
    }
    return values[0];
}

#define KERNEL(name) extern "C" __global__ void __launch_bounds__(THREADS) name(const Args a)
// A kernel for both types of elements.
#define FOR_BOTH(name)                             \
    KERNEL(name##_f32) { name<float>(a); }         \
    KERNEL(name##_bf16) { name<bf16>(a); }
