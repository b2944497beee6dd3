// Noise from the streams of src/rng.rs, bit by bit, and its mixtures with latents.

#include "common.cuh"

// The four draws of a block of a stream (two words of its key, its two indices): Philox 4x32-10.
__device__ inline void draw(unsigned c[4], const unsigned *stream, unsigned long long block) {
    unsigned key[2] = {stream[0], stream[1]};
    c[0] = (unsigned)block, c[1] = (unsigned)(block >> 32), c[2] = stream[2], c[3] = stream[3];
    for (int round = 0; round < 10; round++) {
        unsigned long long a = 0xD2511F53ull * c[0], b = 0xCD9E8D57ull * c[2];
        unsigned first = (unsigned)(b >> 32) ^ c[1] ^ key[0], third = (unsigned)(a >> 32) ^ c[3] ^ key[1];
        c[0] = first, c[1] = (unsigned)b, c[2] = third, c[3] = (unsigned)a;
        key[0] += 0x9E3779B9u, key[1] += 0xBB67AE85u;
    }
}

// p[1], (S, n[1]): normal values of streams, each from its place p[0], (S, 6): key, indices and position. A thread a pair,
// n[2] of them a stream, n[0] in all (Box-Muller, as the CPU's).
KERNEL(normal) {
    long long i = place(), len = a.n[1], pairs = a.n[2];
    if (i >= a.n[0]) return;
    const unsigned *stream = (const unsigned *)a.p[0] + i / pairs * 6;
    long long pair = i % pairs;
    unsigned long long position = (stream[4] | (unsigned long long)stream[5] << 32) + 2 * pair;
    unsigned c[4], first, second;
    draw(c, stream, position / 4);
    switch (position % 4) {
    case 0: first = c[0], second = c[1]; break;
    case 1: first = c[1], second = c[2]; break;
    case 2: first = c[2], second = c[3]; break;
    default:
        first = c[3];
        draw(c, stream, position / 4 + 1);
        second = c[0];
    }
    double u = (first + 1.0) / 4294967296.0, v = second / 4294967296.0;
    double radius = sqrt(-2.0 * log(u)), angle = 6.283185307179586 * v;
    float *out = (float *)a.p[1] + i / pairs * len + 2 * pair;
    out[0] = (float)(radius * cos(angle));
    if (2 * pair + 1 < len) out[1] = (float)(radius * sin(angle));
}

// p[4] and p[5], (B, n[1]), n[0] values in all: a x + b e and c x + d e of the rows p[1] of p[0], the noise p[2], and p[3],
// (B, 4): a, b, c, d.
KERNEL(diffuse) {
    long long i = place(), len = a.n[1];
    if (i >= a.n[0]) return;
    const float *f = (const float *)a.p[3] + i / len * 4;
    float x = ((const float *)a.p[0])[((const unsigned *)a.p[1])[i / len] * len + i % len], e = ((const float *)a.p[2])[i];
    ((float *)a.p[4])[i] = f[0] * x + f[1] * e;
    ((float *)a.p[5])[i] = f[2] * x + f[3] * e;
}
