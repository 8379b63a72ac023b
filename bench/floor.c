/* SPDX-License-Identifier: MIT
 *
 * bench/floor.c - what this machine can do at most: bytes read per second, and products of
 * 8-bit integers added per second. A step cannot take less than bytes / bandwidth or
 * operations / peak; the other benchmarks print how close they come.
 *
 *     make bench_floor && ./bench_floor [THREADS [MIB]]
 *
 * Bandwidth: each thread reads its own slice of MIB (default 143, the packed weights of
 * SmolLM2-135M in Q8_0) again and again. Peak: a loop without memory of the widest
 * multiply-add of bytes that the machine has. Prints "read_gb_s X mac_g_s Y". Best of the rounds.
 */
#define _GNU_SOURCE 1
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { ROUNDS = 40, MAX_THREADS = 64, TURNS = 1000000 };

typedef struct worker {
    pthread_barrier_t *gate;
    const char *mem;
    size_t bytes;
    int index;
    uint64_t sink;
    double macs, begin[2 * ROUNDS], end[2 * ROUNDS];
} worker;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* 64 bytes at a time in eight sums; the compiler takes registers as wide as its caller allows */
typedef uint64_t wide __attribute__((vector_size(64)));

static inline __attribute__((always_inline)) uint64_t read_wide(const char *p, size_t n)
{
    const wide *w = (const wide *)(const void *)p;
    wide s[8] = { 0 };
    for (size_t i = 0; i + 8 <= n / 64; i += 8) {
#pragma GCC unroll 8
        for (size_t k = 0; k < 8; k++)
            s[k] ^= w[i + k];
    }
    s[0] ^= s[1] ^ s[2] ^ s[3] ^ s[4] ^ s[5] ^ s[6] ^ s[7];
    return s[0][0] ^ s[0][3] ^ s[0][7];
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static uint64_t read_avx512(const char *p, size_t n)
{
    return read_wide(p, n);
}
__attribute__((target("avx2"))) static uint64_t read_avx2(const char *p, size_t n)
{
    return read_wide(p, n);
}
#endif

static uint64_t read_all(const char *p, size_t n)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return read_avx512(p, n);
    if (__builtin_cpu_supports("avx2"))
        return read_avx2(p, n);
#endif
    return read_wide(p, n);
}

#if defined(__x86_64__)
/* Ten chains hide the latency. Returns products. */
__attribute__((target("avx512f,avx512vnni"))) static double peak_vnni(uint64_t *sink)
{
    __m512i a[10], x = _mm512_set1_epi8(3), y = _mm512_set1_epi8(5);
    for (int i = 0; i < 10; i++)
        a[i] = _mm512_set1_epi32(i);
    for (int t = 0; t < TURNS; t++) {
#pragma GCC unroll 10
        for (int i = 0; i < 10; i++)
            a[i] = _mm512_dpbusd_epi32(a[i], x, y);
        __asm__ volatile("" : "+v"(x));
    }
    for (int i = 0; i < 10; i++)
        *sink += (uint32_t)_mm512_reduce_add_epi32(a[i]);
    return 10.0 * 64 * TURNS;
}

__attribute__((target("avx2"))) static double peak_avx2(uint64_t *sink)
{
    __m256i a[6], x = _mm256_set1_epi8(3), y = _mm256_set1_epi8(5), one = _mm256_set1_epi16(1);
    for (int i = 0; i < 6; i++)
        a[i] = _mm256_set1_epi32(i);
    for (int t = 0; t < TURNS; t++) {
#pragma GCC unroll 6
        for (int i = 0; i < 6; i++) {
            __asm__ volatile("" : "+x"(x)); /* else the product leaves the loop */
            a[i] = _mm256_add_epi32(a[i], _mm256_madd_epi16(_mm256_maddubs_epi16(x, y), one));
        }
    }
    for (int i = 0; i < 6; i++)
        *sink += (uint32_t)_mm256_extract_epi32(a[i], 0);
    return 6.0 * 32 * TURNS;
}
#endif

static double peak(uint64_t *sink)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512vnni"))
        return peak_vnni(sink);
    if (__builtin_cpu_supports("avx2"))
        return peak_avx2(sink);
#endif
    return 0;
}

/* The i-th processor that the process may use: a woken thread may else share its waker's. */
static void pin(int i)
{
    cpu_set_t may, one;
    CPU_ZERO(&one);
    if (sched_getaffinity(0, sizeof may, &may))
        return;
    for (size_t c = 0; c < CPU_SETSIZE; c++)
        if (CPU_ISSET(c, &may) && i-- == 0)
            CPU_SET(c, &one);
    if (CPU_COUNT(&one))
        pthread_setaffinity_np(pthread_self(), sizeof one, &one);
}

/* Each thread notes its own times: a round lasts from the first begin to the last end. */
static void *work(void *arg)
{
    worker *w = arg;
    pin(w->index);
    for (int r = 0; r < 2 * ROUNDS; r++) {
        pthread_barrier_wait(w->gate);
        w->begin[r] = seconds();
        if (r < ROUNDS)
            w->sink ^= read_all(w->mem, w->bytes);
        else
            w->macs = peak(&w->sink);
        w->end[r] = seconds();
    }
    return NULL;
}

/* the shortest of rounds [r0, r0 + ROUNDS), in seconds */
static double best(const worker *w, int n, int r0)
{
    double least = 1e30;
    for (int r = r0; r < r0 + ROUNDS; r++) {
        double a = w[0].begin[r], b = w[0].end[r];
        for (int i = 1; i < n; i++) {
            a = w[i].begin[r] < a ? w[i].begin[r] : a;
            b = w[i].end[r] > b ? w[i].end[r] : b;
        }
        least = b - a < least ? b - a : least;
    }
    return least;
}

int main(int argc, char **argv)
{
    int n = argc > 1 ? atoi(argv[1]) : 1;
    size_t mib = argc > 2 ? (size_t)atoi(argv[2]) : 143;
    pthread_barrier_t gate;
    pthread_t thread[MAX_THREADS];
    static worker w[MAX_THREADS];
    if (n < 1 || n > MAX_THREADS || mib < 1 || mib > 65536) {
        fprintf(stderr, "usage: bench_floor [THREADS 1..%d [MIB 1..65536]]\n", MAX_THREADS);
        return 2;
    }
    size_t bytes = (mib << 20) / (size_t)n / 64 * 64;
    char *mem = aligned_alloc(64, bytes * (size_t)n);
    if (!mem || pthread_barrier_init(&gate, NULL, (unsigned)n))
        return 1;
    memset(mem, 1, bytes * (size_t)n);
    for (int i = 0; i < n; i++) {
        w[i] =
            (worker){ .gate = &gate, .index = i, .mem = mem + bytes * (size_t)i, .bytes = bytes };
        if (pthread_create(&thread[i], NULL, work, &w[i]))
            return 1;
    }
    double macs = 0;
    uint64_t sink = 0;
    for (int i = 0; i < n; i++) {
        pthread_join(thread[i], NULL);
        macs += w[i].macs;
        sink ^= w[i].sink;
    }
    double read = best(w, n, 0), mac = best(w, n, ROUNDS);
    printf("read_gb_s %.1f mac_g_s %.0f threads %d mib %zu (%x)\n",
           (double)bytes * (double)n / read * 1e-9, macs / mac * 1e-9, n, mib,
           (unsigned)(sink & 0xf));
    free(mem);
    return 0;
}
