/* Runs the AMX kernels on a processor without AMX: carries out the tile instructions where the processor refuses them.
 *
 * For testing src/ops/cpu/micro/amx.rs and its callers on any x86-64 processor with AVX-512 BF16:
 *
 *     cc -O3 -march=native -shared -fPIC -Wl,-z,now -o /tmp/amx_emulator.so scripts/amx_emulator.c
 *     export RUSTFLAGS='--cfg amx_emulated' CARGO_TARGET_DIR=/tmp/amx-target
 *     cargo test --release --test ops --test bf16 --no-run
 *     for test in $(find /tmp/amx-target/release/deps -maxdepth 1 -executable -name 'ops-*' -o -executable -name 'bf16-*')
 *     do LD_PRELOAD=/tmp/amx_emulator.so $test; done
 *
 * Only what the kernels use is there: eight tiles of 16 rows of 64 bytes, and operands with a base register. Intel 64 and
 * IA-32 Architectures Software Developer's Manual, volume 2, describes the instructions.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64 };

/* initial-exec: a signal handler must not allocate. */
#define THREAD_LOCAL static __thread __attribute__((tls_model("initial-exec")))
THREAD_LOCAL uint8_t tiles[TILES][ROWS][ROW_BYTES];
THREAD_LOCAL int configured;

static const int REGISTERS[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static void refuse(const char *what, const uint8_t *code)
{
    fprintf(stderr, "amx_emulator: %s:", what);
    for (int i = 0; i < 8; i++)
        fprintf(stderr, " %02x", code[i]);
    fputc('\n', stderr);
    abort();
}

static float widen(uint16_t bf16)
{
    uint32_t bits = (uint32_t)bf16 << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* TDPBF16PS: C (16 x 16 f32) += A (16 rows of 16 pairs) B (16 rows of pairs, 16 a row). */
static void multiply(int c, int a, int b)
{
    float(*sums)[16] = (void *)tiles[c];
    uint16_t(*left)[32] = (void *)tiles[a], (*right)[32] = (void *)tiles[b];
    for (int row = 0; row < ROWS; row++) {
        float even[16] = {0}, odd[16] = {0};
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 16; column++) {
                even[column] += widen(left[row][2 * k]) * widen(right[k][2 * column]);
                odd[column] += widen(left[row][2 * k + 1]) * widen(right[k][2 * column + 1]);
            }
        for (int column = 0; column < 16; column++)
            sums[row][column] += even[column] + odd[column];
    }
}

static void configure(const uint8_t *operand, const uint8_t *code)
{
    for (int tile = 0; tile < TILES; tile++) {
        uint16_t bytes;
        memcpy(&bytes, operand + 16 + 2 * tile, sizeof bytes);
        if (operand[0] != 1 || bytes != ROW_BYTES || operand[48 + tile] != ROWS)
            refuse("a configuration of other tiles", code);
    }
    memset(tiles, 0, sizeof tiles);
    configured = 1;
}

/* One instruction: a three-byte VEX prefix of map 2, an opcode, ModRM and perhaps an address. */
static void carry_out(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *code = (const uint8_t *)registers[REG_RIP];
    if (code[0] != 0xc4 || (code[1] & 31) != 2)
        refuse("an instruction that is not of AMX", code);
    int index_high = !(code[1] & 0x40) << 3, base_high = !(code[1] & 0x20) << 3;
    int prefix = code[2] & 3, third = ~code[2] >> 3 & 15, opcode = code[3];
    int mode = code[4] >> 6, first = code[4] >> 3 & 7, second = code[4] & 7, length = 5;
    uint8_t *address = NULL;
    int64_t stride = 0;
    if (mode != 3) {
        int base = second;
        if (second == 4) {
            int sib = code[length++], index = (sib >> 3 & 7) | index_high;
            base = sib & 7;
            stride = index == 4 ? 0 : registers[REGISTERS[index]] << (sib >> 6);
        }
        if (mode == 0 && base == 5)
            refuse("an address without a base register", code);
        int32_t displacement = 0;
        if (mode == 1)
            displacement = (int8_t)code[length++];
        if (mode == 2) {
            memcpy(&displacement, code + length, sizeof displacement);
            length += 4;
        }
        address = (uint8_t *)registers[REGISTERS[base | base_high]] + displacement;
    }
    int what = opcode << 2 | prefix;
    if (what == 0x49 << 2 && mode != 3)
        configure(address, code);
    else if (!configured)
        refuse("tiles are used before they are configured", code);
    else if (what == 0x49 << 2)
        configured = 0;
    else if (what == (0x49 << 2 | 3) && mode == 3)
        memset(tiles[first], 0, sizeof tiles[first]);
    else if (what == (0x4b << 2 | 3))
        for (int row = 0; row < ROWS; row++)
            memcpy(tiles[first][row], address + row * stride, ROW_BYTES);
    else if (what == (0x4b << 2 | 2))
        for (int row = 0; row < ROWS; row++)
            memcpy(address + row * stride, tiles[first][row], ROW_BYTES);
    else if (what == (0x5c << 2 | 2) && mode == 3)
        multiply(first, second, third);
    else
        refuse("an instruction that the kernels do not use", code);
    registers[REG_RIP] += length;
}

__attribute__((constructor)) static void install(void)
{
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_NODEFER};
    action.sa_sigaction = carry_out;
    sigaction(SIGILL, &action, NULL);
}
