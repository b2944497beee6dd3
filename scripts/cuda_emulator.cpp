// Runs the kernels of src/ops/cuda/kernels on a processor, and plain loops in place of cuBLAS and cuDNN, so that the ops of
// the GPU can be tested without one: scripts/emulate_cuda.sh.
//
// A block's threads are fibers that take turns from barrier to barrier; blocks come one after the other, in an order that
// changes, and threads in the reverse of theirs every other time: a race between them shows as a wrong result. A thread
// that leaves while others wait at a barrier is an error, as it is on a GPU.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <mutex>
#include <ucontext.h>
#include <vector>

#define __global__ __attribute__((visibility("default")))
#define __device__
#define __shared__ static
#define __launch_bounds__(threads)

struct Place {
    unsigned x, y, z;
};
static Place threadIdx, blockIdx, blockDim, gridDim;

static unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }

using std::isfinite;

static void __syncthreads();

#include "../src/ops/cuda/kernels/activate.cu"
#include "../src/ops/cuda/kernels/attention.cu"
#include "../src/ops/cuda/kernels/augment.cu"
#include "../src/ops/cuda/kernels/elementwise.cu"
#include "../src/ops/cuda/kernels/input.cu"
#include "../src/ops/cuda/kernels/noise.cu"
#include "../src/ops/cuda/kernels/optimizer.cu"

typedef void (*Kernel)(const Args);

namespace {
const size_t STACK = 1 << 16;
enum State { READY, WAITING, DONE };

struct Fiber {
    ucontext_t context;
    State state;
    std::vector<char> stack = std::vector<char>(STACK);
};

ucontext_t scheduler;
std::vector<Fiber> fibers;
unsigned current;
Kernel kernel;
const Args *arguments;
std::mutex one_at_a_time;

void body() {
    kernel(*arguments);
    fibers[current].state = DONE;
}

void resume(unsigned thread) {
    current = thread;
    threadIdx = {thread, 0, 0};
    swapcontext(&scheduler, &fibers[thread].context);
}

// From barrier to barrier until all threads are done; false where some are done and others wait.
bool run_block(unsigned threads, bool reversed) {
    for (unsigned t = 0; t < threads; t++) {
        Fiber &fiber = fibers[t];
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = &scheduler;
        fiber.state = READY;
        makecontext(&fiber.context, body, 0);
    }
    // Threads that are done take no part in later barriers: a kernel may end early for some, but the kernels here end
    // only after their last barrier, or before the first for whole blocks of elements.
    for (;;) {
        unsigned waiting = 0, done_now = 0;
        for (unsigned i = 0; i < threads; i++) {
            unsigned t = reversed ? threads - 1 - i : i;
            if (fibers[t].state == DONE) continue;
            resume(t);
            if (fibers[t].state == DONE) done_now++;
            else waiting++;
        }
        if (!waiting) return true;
        if (done_now) return false;
    }
}
} // namespace

static void __syncthreads() {
    unsigned self = current;
    fibers[self].state = WAITING;
    swapcontext(&fibers[self].context, &scheduler);
    fibers[self].state = READY;
}

extern "C" __global__ int emulate(const char *name, const unsigned *blocks, unsigned threads, const Args *args) {
    std::lock_guard<std::mutex> lock(one_at_a_time);
    // Of this library alone: whole programs have functions called `sum`.
    Dl_info self;
    dladdr((void *)emulate, &self);
    void *library = dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    kernel = library ? (Kernel)dlsym(library, name) : nullptr;
    if (!kernel) {
        fprintf(stderr, "no kernel is called %s\n", name);
        return 1;
    }
    if (fibers.size() < threads) fibers = std::vector<Fiber>(threads);
    arguments = args;
    blockDim = {threads, 1, 1};
    gridDim = {blocks[0], blocks[1], blocks[2]};
    static unsigned calls;
    unsigned all = blocks[0] * blocks[1] * blocks[2];
    bool reversed = calls++ % 2;
    for (unsigned i = 0; i < all; i++) {
        unsigned block = reversed ? all - 1 - i : i;
        blockIdx = {block % blocks[0], block / blocks[0] % blocks[1], block / (blocks[0] * blocks[1])};
        if (!run_block(threads, reversed)) {
            fprintf(stderr, "%s: threads of a block do not meet at one barrier\n", name);
            return 1;
        }
    }
    return 0;
}

template <class T, class C> static void product(const int64_t *s, const int *transposed, const uint64_t *at) {
    const T *a = (const T *)at[0], *b = (const T *)at[1];
    C *c = (C *)at[2];
    for (int64_t j = 0; j < s[1]; j++)
        for (int64_t i = 0; i < s[0]; i++) {
            double sum = 0.0; // the libraries add up in blocks, which is as good
            for (int64_t k = 0; k < s[2]; k++)
                sum += (double)widen(a[transposed[0] ? k + i * s[3] : i + k * s[3]]) *
                       widen(b[transposed[1] ? j + k * s[4] : k + j * s[4]]);
            c[i + j * s[5]] = rounded<C>(sum);
        }
}

// As cublasGemmEx; sizes: m, n, k, lda, ldb, ldc; types: whether a and b are bf16, whether c is.
extern "C" __global__ void emulate_product(const int64_t *sizes, const int *transposed, const int *types,
                                           const uint64_t *at) {
    if (!types[0]) product<float, float>(sizes, transposed, at);
    else if (types[1]) product<bf16, bf16>(sizes, transposed, at);
    else product<bf16, float>(sizes, transposed, at);
}

template <class T> static void convolution(int pass, const int64_t *s, const uint64_t *at) {
    T *tensors[3] = {(T *)at[0], (T *)at[1], (T *)at[2]};
    int64_t b = s[0], h = s[1], w = s[2], in = s[3], out = s[4], k = s[5], stride = s[6], pad = s[7];
    int64_t oh = (h + 2 * pad - k) / stride + 1, ow = (w + 2 * pad - k) / stride + 1;
    int made = pass == 0 ? 2 : pass == 1 ? 0 : 1;
    std::vector<double> sums(made == 0 ? b * h * w * in : made == 1 ? out * k * k * in : b * oh * ow * out);
    for (int64_t n = 0; n < b; n++)
        for (int64_t p = 0; p < oh * ow; p++)
            for (int64_t tap = 0; tap < k * k; tap++) {
                int64_t y = p / ow * stride + tap / k - pad, x = p % ow * stride + tap % k - pad;
                if (y < 0 || y >= h || x < 0 || x >= w) continue;
                for (int64_t o = 0; o < out; o++)
                    for (int64_t i = 0; i < in; i++) {
                        int64_t place[3] = {((n * h + y) * w + x) * in + i, (o * k * k + tap) * in + i,
                                            (n * oh * ow + p) * out + o};
                        double factor = 1.0;
                        for (int t = 0; t < 3; t++)
                            if (t != made) factor *= widen(tensors[t][place[t]]);
                        sums[place[made]] += factor;
                    }
            }
    for (size_t i = 0; i < sums.size(); i++) tensors[made][i] = rounded<T>(sums[i]);
}

// As cuDNN's three; pass: 0 forward, 1 input's gradient, 2 weight's.
extern "C" __global__ void emulate_convolution(int pass, const int64_t *sizes, int is_bf16, const uint64_t *at) {
    is_bf16 ? convolution<bf16>(pass, sizes, at) : convolution<float>(pass, sizes, at);
}
