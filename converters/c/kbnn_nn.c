/* Kernels for 1-bit neural networks in plain C99; see kbnn_nn.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "kbnn_nn.h"

/* ---- What the target has ---------------------------------------------------------------------------------------- */

#if defined(__ARM_FEATURE_DSP) && defined(__GNUC__)
#define KBNN_DSP 1
#else
#define KBNN_DSP 0
#endif

#if defined(__GNUC__) && defined(__thumb2__)
#define KBNN_THUMB2 1
#else
#define KBNN_THUMB2 0
#endif

/* Population counts that are one instruction; elsewhere carry-save adders are faster than the compiler's function. */
#if defined(__GNUC__) && (defined(__riscv_zbb) || defined(__POPCNT__) || defined(__aarch64__))
#define KBNN_POPCOUNT 1
#else
#define KBNN_POPCOUNT 0
#endif

/* For functions of a loop's body, which some optimization levels would call. */
#if defined(__GNUC__)
#define KBNN_INLINE static inline __attribute__((always_inline))
#else
#define KBNN_INLINE static inline
#endif

#define WORD_AT(base, offset) ((uint32_t *)(void *)((base) + (offset)))

static int32_t saturated(int32_t value) {
#if defined(__ARM_FEATURE_SAT) && defined(__GNUC__)
    int32_t result;
    __asm__("ssat %0, #8, %1" : "=r"(result) : "r"(value) : "cc");
    return result;
#else
    return value > 127 ? 127 : value < -128 ? -128 : value;
#endif
}

/* value >> 8, saturated. */
static int32_t saturated_byte(int32_t value) {
#if defined(__ARM_FEATURE_SAT) && defined(__GNUC__)
    int32_t result;
    __asm__("ssat %0, #8, %1, asr #8" : "=r"(result) : "r"(value) : "cc");
    return result;
#else
    return saturated(value >> 8);
#endif
}

static int32_t clamped(int32_t value, int32_t low, int32_t high) {
    return value > high ? high : value < low ? low : value;
}

static int32_t high_word(int32_t a, int32_t b) {
    return (int32_t)(((int64_t)a * b) >> 32);
}

/* Two's complement of the lower and the upper half of a word. */
static int32_t low_half(uint32_t pair) {
    return (int32_t)((pair & 0xFFFFu) ^ 0x8000u) - 0x8000;
}

#if !KBNN_DSP
static int32_t high_half(uint32_t pair) {
    return (int32_t)((pair >> 16) ^ 0x8000u) - 0x8000;
}
#endif

static uint32_t pair_of(int32_t low, int32_t high) {
#if KBNN_DSP
    uint32_t pair;
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(pair) : "r"(low), "r"(high));
    return pair;
#else
    return ((uint32_t)low & 0xFFFFu) | ((uint32_t)high << 16);
#endif
}

/* Bytes 0 and 2, or 1 and 3, of a word as two int16. */
static uint32_t even_bytes(uint32_t word) {
#if KBNN_DSP
    uint32_t pair;
    __asm__("sxtb16 %0, %1" : "=r"(pair) : "r"(word));
    return pair;
#else
    return pair_of((int32_t)((word & 0xFFu) ^ 0x80u) - 0x80, (int32_t)(((word >> 16) & 0xFFu) ^ 0x80u) - 0x80);
#endif
}

static uint32_t odd_bytes(uint32_t word) {
#if KBNN_DSP
    uint32_t pair;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(pair) : "r"(word));
    return pair;
#else
    return even_bytes(word >> 8);
#endif
}

/* Four values as the bytes of a word, wherever they are. */
static uint32_t word_of_bytes(const int8_t *values) {
    return (uint32_t)(uint8_t)values[0] | ((uint32_t)(uint8_t)values[1] << 8) | ((uint32_t)(uint8_t)values[2] << 16) |
           ((uint32_t)(uint8_t)values[3] << 24);
}

/* sum + the products of the halves. */
static int32_t multiply_pairs(uint32_t a, uint32_t b, int32_t sum) {
#if KBNN_DSP
    int32_t result;
    __asm__("smlad %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
#else
    return sum + low_half(a) * low_half(b) + high_half(a) * high_half(b);
#endif
}

/* a - b in each half; no half may overflow. */
static uint32_t subtract_pairs(uint32_t a, uint32_t b) {
#if KBNN_DSP
    uint32_t result;
    __asm__("ssub16 %0, %1, %2" : "=r"(result) : "r"(a), "r"(b));
    return result;
#else
    return pair_of(low_half(a) - low_half(b), high_half(a) - high_half(b));
#endif
}

static uint32_t doubled_pair(uint32_t a) {
#if KBNN_DSP
    uint32_t result;
    __asm__("sadd16 %0, %1, %1" : "=r"(result) : "r"(a));
    return result;
#else
    return pair_of(2 * low_half(a), 2 * high_half(a));
#endif
}

/* The rounded high word of a * b, + c. */
static int32_t add_high_word(int32_t a, int32_t b, int32_t c) {
#if KBNN_DSP
    int32_t result;
    __asm__("smmlar %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(c));
    return result;
#else
    return (int32_t)(((int64_t)a * b + (INT64_C(1) << 31)) >> 32) + c;
#endif
}

/* The sum of the four bytes of a word. */
KBNN_INLINE uint32_t sum_of_bytes(uint32_t word) {
#if KBNN_DSP
    uint32_t sum;
    __asm__("usad8 %0, %1, %2" : "=r"(sum) : "r"(word), "r"(0));
    return sum;
#else
    word = (word & 0x00FF00FFu) + ((word >> 8) & 0x00FF00FFu);
    return (word + (word >> 16)) & 0xFFFFu;
#endif
}

/* ---- Passes ----------------------------------------------------------------------------------------------------- */

static unsigned char *row_of(uint32_t tensor, int32_t y, const kbnn_memory *memory) {
    const kbnn_rows *rows = memory->rows + tensor;
    uint32_t row = (uint32_t)y;
    if (row >= rows->rows) {
        row %= rows->rows;
    }
    return memory->base[rows->memory] + rows->offset + row * rows->pitch;
}

static uint32_t *scratch_of(const kbnn_step *step, const kbnn_memory *memory) {
    return WORD_AT(memory->base[KBNN_ARENA], memory->rows[step->scratch].offset);
}

int kbnn_run(const kbnn_network *network, const int8_t *image, int8_t *scores, void *arena) {
    const kbnn_pass *pass = network->passes;
    kbnn_memory memory;
    if (image == 0 || scores == 0 || arena == 0) {
        return KBNN_NULL_ARGUMENT;
    }
    if (((uintptr_t)arena & 3u) != 0) {
        return KBNN_MISALIGNED_ARENA;
    }
    memory.rows = network->rows;
    memory.base[KBNN_ARENA] = (unsigned char *)arena;
    memory.base[KBNN_IMAGE] = (unsigned char *)(uintptr_t)image; /* is only read */
    memory.base[KBNN_SCORES] = (unsigned char *)scores;
    for (int32_t k = network->count; k > 0; --k, ++pass) {
        for (int32_t y = 0; y < (int32_t)pass->rows; ++y) {
            const kbnn_step *step = pass->steps;
            for (int32_t i = pass->count; i > 0; --i, ++step) {
                step->kernel(step, y, &memory);
            }
        }
    }
    return KBNN_OK;
}

/* Keeps compilers from replacing a loop by a library function. */
#if defined(__GNUC__)
#define KEEP_LOOP() __asm__ volatile("")
#else
#define KEEP_LOOP() (void)0
#endif

#if KBNN_THUMB2 || KBNN_DSP
#define BARRIER() __asm__ volatile("" : : : "memory")
#else
#define BARRIER() (void)0
#endif

static void clear_words(uint32_t *words, int32_t count) {
    for (; count > 0; --count) {
        *words++ = 0;
        KEEP_LOOP();
    }
}

/* ---- Counting bits ---------------------------------------------------------------------------------------------- */

/* The differences of words i and i + 1 of a patch and a filter. */
#if KBNN_THUMB2
/* Two loads in one instruction. They stay between the barriers of their function. */
#define DIFFERENCES(d0, d1, x, w, i)                                                        \
    do {                                                                                    \
        uint32_t w0_, w1_;                                                                  \
        __asm__ volatile("ldrd %0, %1, [%4, %6]\n\tldrd %2, %3, [%5, %6]\n\t"               \
                         "eors %0, %0, %2\n\teors %1, %1, %3"                               \
                         : "=&r"(d0), "=&r"(d1), "=&r"(w0_), "=&r"(w1_)                     \
                         : "r"(x), "r"(w), "i"(4 * (i))                                     \
                         : "cc");                                                           \
    } while (0)
/* Computes values now, whatever else the compiler would like to compute first and has no registers for. */
#define NOW(a, b) __asm__ volatile("" : "+r"(a), "+r"(b))
#else
#define DIFFERENCES(d0, d1, x, w, i)        \
    do {                                    \
        d0 = (x)[(i)] ^ (w)[(i)];           \
        d1 = (x)[(i) + 1] ^ (w)[(i) + 1];   \
    } while (0)
#define NOW(a, b) (void)0
#endif

/* sum and carry of a + b + d, bit by bit. */
#define FULL_ADDER(sum, carry, a, b, d)          \
    do {                                         \
        const uint32_t b_ = (b);                 \
        const uint32_t d_ = (d);                 \
        const uint32_t ab_ = (a) ^ b_;           \
        sum = ab_ ^ d_;                          \
        carry = (ab_ & (b_ ^ d_)) ^ b_;          \
        NOW(sum, carry);                         \
    } while (0)

/* The full adder of a triple, of which a ^ b, b and b ^ d are at hand. */
#define TRIPLE(sum, carry, ab, b, bd)     \
    do {                                  \
        sum = (ab) ^ (bd) ^ (b);          \
        carry = ((ab) & (bd)) ^ (b);      \
        NOW(sum, carry);                  \
    } while (0)

/* Sums and carries of three words, and of six. */
#define THREE(sum, carry, x, w, i)                                 \
    do {                                                           \
        uint32_t d0_, d1_;                                         \
        const uint32_t d2_ = (x)[(i) + 2] ^ (w)[(i) + 2];          \
        DIFFERENCES(d0_, d1_, x, w, i);                            \
        TRIPLE(sum, carry, d0_, d1_, d2_);                         \
    } while (0)

#define SIX(sum0, carry0, sum1, carry1, x, w, i)  \
    do {                                          \
        uint32_t d0_, d1_, d2_, d3_, d4_, d5_;    \
        DIFFERENCES(d0_, d1_, x, w, i);           \
        DIFFERENCES(d2_, d3_, x, w, (i) + 2);     \
        TRIPLE(sum0, carry0, d0_, d1_, d2_);      \
        DIFFERENCES(d4_, d5_, x, w, (i) + 4);     \
        TRIPLE(sum1, carry1, d3_, d4_, d5_);      \
    } while (0)

#if KBNN_POPCOUNT

KBNN_INLINE uint32_t bits_of(uint32_t word) {
    return (uint32_t)__builtin_popcount(word);
}

KBNN_INLINE uint32_t count_3(const uint32_t *x, const uint32_t *w) {
    uint32_t ones, twos;
    THREE(ones, twos, x, w, 0);
    return bits_of(ones) + 2u * bits_of(twos);
}

KBNN_INLINE uint32_t count_6(const uint32_t *x, const uint32_t *w) {
    return count_3(x, w) + count_3(x + 3, w + 3);
}

KBNN_INLINE uint32_t count_9(const uint32_t *x, const uint32_t *w) {
    return count_6(x, w) + count_3(x + 6, w + 6);
}

KBNN_INLINE uint32_t count_18(const uint32_t *x, const uint32_t *w) {
    return count_9(x, w) + count_9(x + 9, w + 9);
}

#else

/* Numbers of bits, in fields of 4 and of 8 bits. The masks are held in registers, because an operand cannot be both
 * shifted and combined with a constant. */
KBNN_INLINE uint32_t held(uint32_t constant) {
#if KBNN_THUMB2
    __asm__ volatile("" : "+r"(constant));
#endif
    return constant;
}

KBNN_INLINE uint32_t nibbles_of(uint32_t word, uint32_t in_pairs, uint32_t in_nibbles) {
    word -= (word >> 1) & in_pairs;
    return (word & in_nibbles) + ((word >> 2) & in_nibbles);
}

KBNN_INLINE uint32_t bytes_of(uint32_t nibbles, uint32_t in_bytes) {
    return (nibbles & in_bytes) + ((nibbles >> 4) & in_bytes);
}

KBNN_INLINE uint32_t count_3(const uint32_t *x, const uint32_t *w) {
    const uint32_t in_pairs = held(0x55555555u), in_nibbles = held(0x33333333u), in_bytes = held(0x0F0F0F0Fu);
    uint32_t ones, twos, nibbles;
    THREE(ones, twos, x, w, 0);
    nibbles = nibbles_of(ones, in_pairs, in_nibbles) + 2u * nibbles_of(twos, in_pairs, in_nibbles);
    return sum_of_bytes(bytes_of(nibbles, in_bytes));
}

KBNN_INLINE uint32_t count_6(const uint32_t *x, const uint32_t *w) {
    const uint32_t in_pairs = held(0x55555555u), in_nibbles = held(0x33333333u), in_bytes = held(0x0F0F0F0Fu);
    uint32_t s0, c0, s1, c1, ones, twos;
    SIX(s0, c0, s1, c1, x, w, 0);
    ones = nibbles_of(s0, in_pairs, in_nibbles) + nibbles_of(s1, in_pairs, in_nibbles);
    twos = nibbles_of(c0, in_pairs, in_nibbles) + nibbles_of(c1, in_pairs, in_nibbles);
    return sum_of_bytes(bytes_of(ones, in_bytes) + 2u * bytes_of(twos, in_bytes));
}

KBNN_INLINE uint32_t count_9(const uint32_t *x, const uint32_t *w) {
    const uint32_t in_pairs = held(0x55555555u), in_nibbles = held(0x33333333u), in_bytes = held(0x0F0F0F0Fu);
    uint32_t s0, c0, s1, c1, s2, c2, ones, a, b, twos, fours;
    SIX(s0, c0, s1, c1, x, w, 0);
    THREE(s2, c2, x, w, 6);
    FULL_ADDER(ones, a, s0, s1, s2);
    FULL_ADDER(b, fours, c0, c1, c2);
    /* ones + 2 * twos is at most 12, and twos + 2 * fours. */
    ones = nibbles_of(ones, in_pairs, in_nibbles) + 2u * nibbles_of(a, in_pairs, in_nibbles);
    twos = nibbles_of(b, in_pairs, in_nibbles) + 2u * nibbles_of(fours, in_pairs, in_nibbles);
    return sum_of_bytes(bytes_of(ones, in_bytes) + 2u * bytes_of(twos, in_bytes));
}

KBNN_INLINE uint32_t count_18(const uint32_t *x, const uint32_t *w) {
    uint32_t s0, c0, s1, c1, s2, c2, s3, c3, s4, c4, ones, more_ones, more_twos;
    uint32_t a, b, d, f, g, h, twos, fours, eights;
    SIX(s0, c0, s1, c1, x, w, 0);
    SIX(s2, c2, s3, c3, x, w, 6);
    FULL_ADDER(ones, a, s0, s1, s2);
    FULL_ADDER(b, f, c0, c1, c2);
    SIX(s4, c4, more_ones, more_twos, x, w, 12);
    FULL_ADDER(ones, d, ones, s3, s4);
    FULL_ADDER(d, g, c3, c4, d);
    FULL_ADDER(twos, h, a, b, d);
    FULL_ADDER(fours, eights, f, g, h);
    {
        const uint32_t in_pairs = held(0x55555555u), in_nibbles = held(0x33333333u), in_bytes = held(0x0F0F0F0Fu);
        uint32_t sum = nibbles_of(ones, in_pairs, in_nibbles) + nibbles_of(more_ones, in_pairs, in_nibbles);
        sum = bytes_of(sum, in_bytes);
        twos = nibbles_of(twos, in_pairs, in_nibbles) + nibbles_of(more_twos, in_pairs, in_nibbles);
        sum += 2u * bytes_of(twos, in_bytes);
        fours = nibbles_of(fours, in_pairs, in_nibbles) + 2u * nibbles_of(eights, in_pairs, in_nibbles);
        return sum_of_bytes(sum + 4u * bytes_of(fours, in_bytes));
    }
}

#endif

#define COUNT(name, length, function)                                                                           \
    void name(const uint32_t *patch, const uint32_t *weights, int32_t filters, int32_t words, uint32_t *sums) { \
        const uint32_t *const end = weights + filters * (length);                                               \
        (void)words;                                                                                            \
        BARRIER();                                                                                              \
        do {                                                                                                    \
            *sums++ = function(patch, weights);                                                                 \
            weights += (length);                                                                                \
        } while (weights != end);                                                                               \
        BARRIER();                                                                                              \
    }

COUNT(kbnn_count_3, 3, count_3)
COUNT(kbnn_count_6, 6, count_6)
COUNT(kbnn_count_9, 9, count_9)
COUNT(kbnn_count_18, 18, count_18)

/* A half of a word twice. */
KBNN_INLINE uint32_t lower_twice(uint32_t word) {
#if KBNN_DSP
    uint32_t result;
    __asm__("pkhbt %0, %1, %1, lsl #16" : "=r"(result) : "r"(word));
    return result;
#else
    return (word & 0xFFFFu) | (word << 16);
#endif
}

KBNN_INLINE uint32_t upper_twice(uint32_t word) {
#if KBNN_DSP
    uint32_t result;
    __asm__("pkhtb %0, %1, %1, asr #16" : "=r"(result) : "r"(word));
    return result;
#else
    return (word >> 16) | (word & 0xFFFF0000u);
#endif
}

/* The bits of the lower half in the lower half, those of the upper one in the upper. */
KBNN_INLINE uint32_t bits_of_halves(uint32_t ones, uint32_t a, uint32_t b, uint32_t fours) {
#if KBNN_POPCOUNT
    const uint32_t low = bits_of(ones & 0xFFFFu) + 2u * (bits_of(a & 0xFFFFu) + bits_of(b & 0xFFFFu)) +
                         4u * bits_of(fours & 0xFFFFu);
    const uint32_t all = bits_of(ones) + 2u * (bits_of(a) + bits_of(b)) + 4u * bits_of(fours);
    return low | ((all - low) << 16);
#else
    const uint32_t in_pairs = held(0x55555555u), in_nibbles = held(0x33333333u), in_bytes = held(0x0F0F0F0Fu);
    uint32_t bytes;
    ones = nibbles_of(ones, in_pairs, in_nibbles) + 2u * nibbles_of(a, in_pairs, in_nibbles);
    fours = nibbles_of(b, in_pairs, in_nibbles) + 2u * nibbles_of(fours, in_pairs, in_nibbles);
    bytes = bytes_of(ones, in_bytes) + 2u * bytes_of(fours, in_bytes);
    return (bytes & 0x00FF00FFu) + ((bytes >> 8) & 0x00FF00FFu);
#endif
}

void kbnn_count_pairs(const uint32_t *patch, const uint32_t *weights, int32_t filters, int32_t words, uint32_t *sums) {
    uint32_t *const end = sums + filters;
    (void)words;
    for (; sums != end; ++sums, weights += 5) {
        uint32_t s0, c0, s1, c1, s2, c2, w, ones, a, b, fours;
        w = weights[0];
        s0 = patch[0] ^ lower_twice(w);
        s1 = patch[1] ^ upper_twice(w);
        w = weights[1];
        s2 = patch[2] ^ lower_twice(w);
        TRIPLE(ones, c0, s0, s1, s2);
        s0 = patch[3] ^ upper_twice(w);
        w = weights[2];
        s1 = patch[4] ^ lower_twice(w);
        s2 = patch[5] ^ upper_twice(w);
        TRIPLE(fours, c1, s0, s1, s2);
        w = weights[3];
        s0 = patch[6] ^ lower_twice(w);
        s1 = patch[7] ^ upper_twice(w);
        s2 = patch[8] ^ lower_twice(weights[4]);
        TRIPLE(b, c2, s0, s1, s2);
        FULL_ADDER(ones, a, ones, fours, b);
        FULL_ADDER(b, fours, c0, c1, c2);
        w = bits_of_halves(ones, a, b, fours);
        sums[0] = w & 0xFFFFu;
        sums[filters] = w >> 16;
    }
}

void kbnn_count_any(const uint32_t *patch, const uint32_t *weights, int32_t filters, int32_t words, uint32_t *sums) {
    BARRIER();
    for (int32_t f = 0; f < filters; ++f) {
        const uint32_t *x = patch;
        uint32_t sum = 0;
        int32_t left = words;
        for (; left >= 18; left -= 18, x += 18, weights += 18) {
            sum += count_18(x, weights);
        }
        for (; left >= 9; left -= 9, x += 9, weights += 9) {
            sum += count_9(x, weights);
        }
        for (; left >= 3; left -= 3, x += 3, weights += 3) {
            sum += count_3(x, weights);
        }
        sums[f] = sum;
    }
    BARRIER();
}

void kbnn_count_plain(const uint32_t *patch, const uint32_t *weights, int32_t filters, int32_t words, uint32_t *sums) {
    for (int32_t f = 0; f < filters; ++f) {
        uint32_t sum = 0;
        for (int32_t k = 0; k < words; ++k) {
            uint32_t word = patch[k] ^ *weights++;
            word -= (word >> 1) & 0x55555555u;
            word = (word & 0x33333333u) + ((word >> 2) & 0x33333333u);
            sum += sum_of_bytes((word + (word >> 4)) & 0x0F0F0F0Fu);
        }
        sums[f] = sum;
    }
}

/* ---- What becomes of the sums ----------------------------------------------------------------------------------- */

/* By a multiplier in the lower half of a word and an offset in the upper one. */
KBNN_INLINE int32_t scaled_by(uint32_t sum, uint32_t channel, int32_t centre, int32_t shift) {
    const int32_t product = ((int16_t)((int32_t)sum - centre) * (int16_t)(channel & 0xFFFFu)) >> shift;
    return saturated_byte(product + ((int32_t)channel >> 16));
}

void kbnn_write_short(const void *params, const uint32_t *sums, int32_t filters, void *pixel) {
    const kbnn_short *scaled = (const kbnn_short *)params;
    const uint32_t *channel = scaled->channels;
    const int32_t centre = scaled->centre;
    const int32_t shift = scaled->shift;
    int8_t *out = (int8_t *)pixel;
    const uint32_t *const end = sums + filters;
    for (; end - sums >= 2; sums += 2, channel += 2, out += 2) {
        out[0] = (int8_t)scaled_by(sums[0], channel[0], centre, shift);
        out[1] = (int8_t)scaled_by(sums[1], channel[1], centre, shift);
    }
    if (sums != end) {
        *out = (int8_t)scaled_by(*sums, *channel, centre, shift);
    }
}

void kbnn_write_int8(const void *params, const uint32_t *sums, int32_t filters, void *pixel) {
    const kbnn_scaled *scaled = (const kbnn_scaled *)params;
    const kbnn_channel *channel = scaled->channels;
    const int32_t shift = scaled->shift;
    int8_t *out = (int8_t *)pixel;
    for (const uint32_t *end = sums + filters; sums != end; ++sums, ++channel) {
        *out++ = (int8_t)saturated(((int32_t)*sums * channel->multiplier + channel->offset) >> shift);
    }
}

void kbnn_write_wide(const void *params, const uint32_t *sums, int32_t filters, void *pixel) {
    const kbnn_wide *wide = (const kbnn_wide *)params;
    const kbnn_exception *exception = wide->exceptions;
    int8_t *out = (int8_t *)pixel;
    for (int32_t f = 0; f < filters; ++f) {
        const int32_t high = high_word((int32_t)(sums[f] << wide->left), wide->channels[f].multiplier);
        out[f] = (int8_t)clamped((high + wide->channels[f].offset) >> wide->shift, wide->low, wide->high);
        for (; (int32_t)exception->filter == f; ++exception) {
            if (exception->sum == sums[f]) {
                out[f] = exception->value;
            }
        }
    }
}

void kbnn_write_bits(const void *params, const uint32_t *sums, int32_t filters, void *pixel) {
    const uint16_t *limits = (const uint16_t *)params;
    uint32_t *out = (uint32_t *)pixel;
    for (; filters > 0; filters -= 32) {
        const int32_t bits = filters < 32 ? filters : 32;
        uint32_t word = 0;
        for (int32_t k = 0; k < bits; ++k) {
            word |= (uint32_t)(*sums++ >= *limits++) << k;
        }
        *out++ = word;
    }
}

/* ---- Binary convolution ----------------------------------------------------------------------------------------- */

/* The signs of `count` values. */
static uint32_t signs_of(const int8_t *values, int32_t count, int32_t zero) {
    uint32_t word = 0;
    for (int32_t k = 0; k < count; ++k) {
        word |= ((uint32_t)(values[k] - zero) >> 31) << k;
    }
    return word;
}

/* The signs of 32 values that are aligned to words. */
static uint32_t signs_of_32(const int8_t *values, int32_t zero) {
    uint32_t word = 0;
    for (int32_t k = 0; k < 32; k += 4) {
        word >>= 4;
        word |= ((uint32_t)(values[k] - zero) >> 31) << 28;
        word |= ((uint32_t)(values[k + 1] - zero) >> 31) << 29;
        word |= ((uint32_t)(values[k + 2] - zero) >> 31) << 30;
        word |= (uint32_t)(values[k + 3] - zero) & 0x80000000u;
    }
    return word;
}

void kbnn_signs_of_int8(const int8_t *values, int32_t count, int32_t zero, uint32_t *words) {
    for (; count > 0; count -= 32, values += 32) {
        *words++ = signs_of(values, count < 32 ? count : 32, zero);
    }
}

void kbnn_signs_of_float(const float *values, int32_t count, uint32_t *words) {
    for (; count > 0; count -= 32, values += 32) {
        uint32_t word = 0;
        for (int32_t k = 0; k < (count < 32 ? count : 32); ++k) {
            word |= (uint32_t)(values[k] < 0.0f) << k;
        }
        *words++ = word;
    }
}

static void signs_of_row(const kbnn_bconv_params *p, const int8_t *values, uint32_t *words) {
    const int32_t channels = p->channels;
    const int32_t zero = p->zero;
    for (int32_t x = 0; x < (int32_t)p->width; ++x) {
        int32_t left = channels;
        for (; left >= 32; left -= 32, values += 32) {
            *words++ = signs_of_32(values, zero);
        }
        if (left > 0) {
            *words++ = signs_of(values, left, zero);
            values += left;
        }
    }
}

/* Fills the ring with rows of signs up to the last one that output row y reads. Row r is at (r + pad_top) % rows; rows
 * and columns of padding are +1, which is 0. */
static void fill_ring(const kbnn_step *step, int32_t y, const kbnn_memory *memory, int of_bits) {
    const kbnn_bconv_params *p = (const kbnn_bconv_params *)step->params;
    const int32_t rows = (p->kernel_height - 1) * p->dilation_y + 1;
    const int32_t row_words = (int32_t)p->ring_width * p->words;
    const int32_t from = y == 0 ? 0 : (y - 1) * p->stride_y + rows;
    const int32_t to = y * p->stride_y + rows;
    uint32_t *ring = scratch_of(step, memory);
    for (int32_t padded = from > to - rows ? from : to - rows; padded < to; ++padded) {
        const int32_t row = padded - p->pad_top;
        uint32_t *words = ring + (padded % rows) * row_words;
        const int32_t inside = (int32_t)p->width * p->words;
        const int32_t before = (int32_t)p->pad_left * p->words;
        if (row < 0 || row >= (int32_t)p->height) {
            clear_words(words, row_words);
            continue;
        }
        clear_words(words, before);
        clear_words(words + before + inside, row_words - before - inside);
        if (of_bits) {
            const uint32_t *bits = WORD_AT(row_of(step->in0, row, memory), 0);
            for (int32_t k = 0; k < inside; ++k) {
                words[before + k] = bits[k];
                KEEP_LOOP();
            }
        } else {
            signs_of_row(p, (const int8_t *)row_of(step->in0, row, memory), words + before);
        }
    }
}

/* Three words as the triples of the filters have them. */
static void in_triples(uint32_t *words, int32_t count) {
    for (; count > 0; count -= 3, words += 3) {
        words[0] ^= words[1];
        words[2] ^= words[1];
    }
}

/* Gathers the patches of output pixels x and x + 1, of at most 16 channels, into the halves of 9 words. */
static void gather_pair(const kbnn_bconv_params *p, const uint32_t *ring, int32_t y, int32_t x, uint32_t *patch) {
    const int32_t rows = 2 * p->dilation_y + 1;
    const int32_t step = p->dilation_x;
    const int32_t stride = p->stride_x;
    int32_t row = (y * p->stride_y) % rows;
    for (int32_t i = 0; i < 3; ++i, patch += 3) {
        const uint32_t *pixel = ring + row * (int32_t)p->ring_width + x * stride;
        const uint32_t middle = pixel[step] | (pixel[step + stride] << 16);
        patch[0] = (pixel[0] | (pixel[stride] << 16)) ^ middle;
        patch[1] = middle;
        patch[2] = (pixel[2 * step] | (pixel[2 * step + stride] << 16)) ^ middle;
        row += p->dilation_y;
        if (row >= rows) {
            row -= rows;
        }
    }
}

/* Gathers the patch of output pixel x, for one group of channels. Where a pixel is half a word or less, two pixels
 * share one. */
static void gather_patch(const kbnn_bconv_params *p, const uint32_t *ring, int32_t y, int32_t x, int32_t group, uint32_t *patch) {
    const int32_t rows = (p->kernel_height - 1) * p->dilation_y + 1;
    const int32_t words = p->words;
    const int32_t own = words / p->groups;
    const int32_t next = (int32_t)p->dilation_x * words;
    const uint32_t *const end = patch + p->patch_words;
    uint32_t *const begin = patch;
    int32_t row = (y * p->stride_y) % rows;
    uint32_t half = 0;
    int32_t halves = 0;
    for (int32_t i = 0; i < (int32_t)p->kernel_height; ++i) {
        const uint32_t *pixel = ring + (row * (int32_t)p->ring_width + x * p->stride_x) * words + group * own;
        if (p->channels <= 16 && !p->plain) {
            for (int32_t j = 0; j < (int32_t)p->kernel_width; ++j, pixel += next) {
                if (halves) {
                    *patch++ = half | (*pixel << 16);
                } else {
                    half = *pixel;
                }
                halves = !halves;
            }
        } else {
            for (int32_t j = 0; j < (int32_t)p->kernel_width; ++j, pixel += next) {
                for (int32_t k = 0; k < own; ++k) {
                    *patch++ = pixel[k];
                    KEEP_LOOP();
                }
            }
        }
        row += p->dilation_y;
        if (row >= rows) {
            row -= rows;
        }
    }
    if (halves) {
        *patch++ = half;
    }
    while (patch != end) {
        *patch++ = 0;
        KEEP_LOOP();
    }
    if (!p->plain) {
        in_triples(begin, p->patch_words);
    }
}

static void convolve_bits(const kbnn_step *step, int32_t y, const kbnn_memory *memory, int of_bits) {
    const kbnn_bconv_params *p = (const kbnn_bconv_params *)step->params;
    const int32_t rows = (p->kernel_height - 1) * p->dilation_y + 1;
    const int32_t filters = p->filters / p->groups;
    uint32_t *ring = scratch_of(step, memory);
    uint32_t *patch = ring + rows * (int32_t)p->ring_width * p->words;
    uint32_t *sums = patch + p->patch_words;
    unsigned char *pixel = row_of(step->out, y, memory);
    fill_ring(step, y, memory, of_bits);
    if (p->pixels == 2) {
        for (int32_t x = 0; x < (int32_t)p->out_width; x += 2, pixel += p->pixel_bytes) {
            gather_pair(p, ring, y, x, patch);
            p->count(patch, p->weights, filters, p->patch_words, sums);
            p->write(p->output, sums, filters, pixel);
            if (x + 1 < (int32_t)p->out_width) {
                pixel += p->pixel_bytes;
                p->write(p->output, sums + filters, filters, pixel);
            }
        }
        return;
    }
    for (int32_t x = 0; x < (int32_t)p->out_width; ++x, pixel += p->pixel_bytes) {
        const uint32_t *weights = p->weights;
        for (int32_t group = 0; group < (int32_t)p->groups; ++group) {
            gather_patch(p, ring, y, x, group, patch);
            p->count(patch, weights, filters, p->patch_words, sums + group * filters);
            weights += filters * p->patch_words;
        }
        p->write(p->output, sums, p->filters, pixel);
    }
}

void kbnn_bconv_of_int8(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    convolve_bits(step, y, memory, 0);
}

void kbnn_bconv_of_bits(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    convolve_bits(step, y, memory, 1);
}

/* ---- TensorFlow Lite's fixed-point multiplication ---------------------------------------------------------------- */

/* The high word of 2 * a * b, rounded to nearest. */
static int32_t doubling_high_word(int32_t a, int32_t b) {
    const int64_t product = (int64_t)a * b;
    return (int32_t)((product + (INT64_C(1) << 30)) >> 31);
}

/* value / 2^shift, rounded to nearest, halves away from zero. */
static int32_t divided_by_power(int32_t value, int32_t shift) {
    const int32_t mask = (int32_t)((UINT32_C(1) << shift) - 1u);
    const int32_t remainder = value & mask;
    const int32_t threshold = (mask >> 1) + (value < 0);
    return (value >> shift) + (remainder > threshold);
}

/* value * multiplier * 2^(shift - 31) in two roundings. */
static int32_t rescaled(int32_t value, int32_t multiplier, int32_t shift) {
    const int32_t left = shift > 0 ? shift : 0;
    const int32_t right = shift > 0 ? 0 : -shift;
    return divided_by_power(doubling_high_word((int32_t)((uint32_t)value << left), multiplier), right);
}

/* The same as matrix multiplications round it: halves up. */
static int32_t rescaled_up(int32_t value, int32_t multiplier, int32_t shift) {
    const int32_t left = shift > 0 ? shift : 0;
    const int32_t right = shift > 0 ? 0 : -shift;
    const int32_t high = doubling_high_word((int32_t)((uint32_t)value << left), multiplier);
    return (int32_t)(((int64_t)high + ((INT64_C(1) << right) >> 1)) >> right);
}

/* ---- Convolution in int8 ---------------------------------------------------------------------------------------- */

/* Expands a row into pairs of int16 without their zero point. A patch may begin at an odd value; for those a second
 * phase holds the row from its second value on. Where pixels are multiples of 4 channels, the four values of a word
 * are in the order 0, 2, 1, 3, which is the order of the halves that they are expanded to. */
static void expand_row(const kbnn_conv_params *p, const int8_t *values, uint32_t *words, int in_words, int doubled) {
    const int32_t before = (int32_t)p->pad_left * p->channels;
    const int32_t inside = (int32_t)p->width * p->channels;
    const int32_t zero = p->zero;
    uint32_t *const end = words + p->ring_words;
    uint32_t *const row = words;
    int32_t k = 0;
    for (int32_t i = before / 2; i > 0; --i) {
        *words++ = 0;
        KEEP_LOOP();
    }
    if ((p->channels & 3u) == 0) {
        const uint32_t zeros = pair_of(zero, zero);
        if (in_words && !doubled) {
            const uint32_t *four = (const uint32_t *)(const void *)values;
            for (; k < inside; k += 4) {
                const uint32_t word = *four++;
                *words++ = subtract_pairs(even_bytes(word), zeros);
                *words++ = subtract_pairs(odd_bytes(word), zeros);
            }
        }
        for (; k < inside; k += 4, words += 2) {
            const uint32_t word = word_of_bytes(values + k);
            words[0] = subtract_pairs(even_bytes(word), zeros);
            words[1] = subtract_pairs(odd_bytes(word), zeros);
            if (doubled) {
                words[0] = doubled_pair(words[0]);
                words[1] = doubled_pair(words[1]);
            }
        }
    } else {
        const int32_t scale = doubled ? 2 : 1;
        const int8_t *value = values;
        const int8_t *const last = values + inside - 1;
        if (before & 1) {
            *words++ = pair_of(0, (*value++ - zero) * scale);
        }
        if (doubled) {
            for (; value < last; value += 2) {
                *words++ = pair_of(2 * (value[0] - zero), 2 * (value[1] - zero));
            }
        } else {
            for (; value < last; value += 2) {
                *words++ = pair_of(value[0] - zero, value[1] - zero);
            }
        }
        if (value == last) {
            *words++ = pair_of((*value - zero) * scale, 0);
        }
    }
    while (words != end) {
        *words++ = 0;
        KEEP_LOOP();
    }
    if (p->phases == 2) {
        uint32_t word = row[0];
        for (const uint32_t *from = row + 1; from != end;) {
            const uint32_t next = *from++;
            *words++ = (word >> 16) | (next << 16);
            word = next;
        }
        *words = word >> 16;
    }
}

static void expand_rows(const kbnn_step *step, int32_t y, const kbnn_memory *memory, int doubled) {
    const kbnn_conv_params *p = (const kbnn_conv_params *)step->params;
    const int32_t rows = p->kernel_height;
    const int32_t row_words = (int32_t)p->ring_words * p->phases;
    const int32_t from = y == 0 ? 0 : (y - 1) * p->stride_y + rows;
    const int32_t to = y * p->stride_y + rows;
    uint32_t *ring = scratch_of(step, memory);
    for (int32_t padded = from > to - rows ? from : to - rows; padded < to; ++padded) {
        const int32_t row = padded - p->pad_top;
        uint32_t *words = ring + (padded % rows) * row_words;
        if (row < 0 || row >= (int32_t)p->height) {
            clear_words(words, row_words);
        } else {
            const int in_words = memory->rows[step->in0].memory == KBNN_ARENA;
            expand_row(p, (const int8_t *)row_of(step->in0, row, memory), words, in_words, doubled);
        }
    }
}

/* Stores at offsets that stay offsets: pointers for each would not find registers. */
#if KBNN_THUMB2
#define STORE_BYTE(base, offset, value) \
    __asm__ volatile("strb %0, [%1, %2]" : : "r"(value), "r"(base), "r"(offset) : "memory")
#define FOUR_WORDS(out, a, b, c, d)                                                            \
    __asm__ volatile("ldr r4, [%1], #4\n\tldr r5, [%2], #4\n\tldr r6, [%3], #4\n\t"            \
                     "ldr r8, [%4], #4\n\tstmia %0!, {r4, r5, r6, r8}"                         \
                     : "+r"(out), "+r"(a), "+r"(b), "+r"(c), "+r"(d)                           \
                     :                                                                         \
                     : "r4", "r5", "r6", "r8", "memory")
#else
#define STORE_BYTE(base, offset, value) (base)[(offset)] = (int8_t)(value)
#define FOUR_WORDS(out, a, b, c, d) \
    do {                            \
        *(out)++ = *(a)++;          \
        *(out)++ = *(b)++;          \
        *(out)++ = *(c)++;          \
        *(out)++ = *(d)++;          \
    } while (0)
#endif

/* The patches of four pixels, word by word: the first of each, the second, and so on. What is left of their length has
 * weights of zero and may hold anything. */
static void gather_four(const kbnn_conv_params *p, const uint32_t *ring, int32_t y, int32_t x, int32_t pixels, uint32_t *out) {
    const int32_t rows = p->kernel_height;
    const int32_t values = p->stride_x * p->channels;
    const int32_t pitch = (int32_t)p->ring_words * p->phases;
    const int32_t phase = p->ring_words;
    const int32_t row_words = p->row_words;
    const int32_t row = (y * p->stride_y) % rows;
    const int32_t first = x * values;
    const int32_t second = first + (pixels > 1 ? values : 0);
    const int32_t third = second + (pixels > 2 ? values : 0);
    const int32_t fourth = third + (pixels > 3 ? values : 0);
    const uint32_t *from = ring + row * pitch;
    const uint32_t *a = from + (first & 1) * phase + (first >> 1);
    const uint32_t *b = from + (second & 1) * phase + (second >> 1);
    const uint32_t *c = from + (third & 1) * phase + (third >> 1);
    const uint32_t *d = from + (fourth & 1) * phase + (fourth >> 1);
    int32_t before_end = rows - row;
    for (int32_t i = rows; i > 0; --i) {
        const int32_t jump = (--before_end == 0 ? pitch * (1 - rows) : pitch) - row_words;
        int32_t k = row_words;
        do {
            FOUR_WORDS(out, a, b, c, d);
        } while (--k != 0);
        a += jump;
        b += jump;
        c += jump;
        d += jump;
    }
}

/* Eight words of four patches times as many of a filter, which is stored in int16 or in int8. */
typedef struct {
    int32_t a, b, c, d;
} four_sums;

#if KBNN_DSP
#define FOUR_PRODUCTS_ON(weight, a, b, c, d)                                             \
    "ldmia %[x]!, {r4, r5, r6, r8}\n\t"                                                  \
    "smlad %[a], " weight ", r4, " a "\n\tsmlad %[b], " weight ", r5, " b "\n\t"         \
    "smlad %[c], " weight ", r6, " c "\n\tsmlad %[d], " weight ", r8, " d "\n\t"
#define FOUR_PRODUCTS(weight) FOUR_PRODUCTS_ON(weight, "%[a]", "%[b]", "%[c]", "%[d]")
#define TWO_OF_INT16 "ldrd r9, r10, [%[w]], #8\n\t"
#define TWO_OF_INT8 "ldr r10, [%[w]], #4\n\tsxtb16 r9, r10\n\tsxtb16 r10, r10, ror #8\n\t"
#define NEXT(two) two FOUR_PRODUCTS("r9") FOUR_PRODUCTS("r10")
/* Begins with the bias. */
#define FIRST_EIGHT(two)                                                                                      \
    __asm__ volatile("ldr %[d], [%[w]], #4\n\t" two                                          \
                     FOUR_PRODUCTS_ON("r9", "%[d]", "%[d]", "%[d]", "%[d]") FOUR_PRODUCTS("r10")              \
                     NEXT(two) NEXT(two) NEXT(two)                                                            \
                     : [a] "=&r"(s.a), [b] "=&r"(s.b), [c] "=&r"(s.c), [d] "=&r"(s.d), [x] "+r"(x), [w] "+r"(w) \
                     :                                                                                        \
                     : "r4", "r5", "r6", "r8", "r9", "r10")
#define NEXT_EIGHT(two)                                                                                       \
    __asm__ volatile(NEXT(two) NEXT(two) NEXT(two) NEXT(two)                                                  \
                     : [a] "+r"(s.a), [b] "+r"(s.b), [c] "+r"(s.c), [d] "+r"(s.d), [x] "+r"(x), [w] "+r"(w)   \
                     :                                                                                        \
                     : "r4", "r5", "r6", "r8", "r9", "r10")
#else
#define FOUR_PRODUCTS(weight)                       \
    do {                                            \
        const uint32_t weight_ = (weight);          \
        s.a = multiply_pairs(weight_, x[0], s.a);   \
        s.b = multiply_pairs(weight_, x[1], s.b);   \
        s.c = multiply_pairs(weight_, x[2], s.c);   \
        s.d = multiply_pairs(weight_, x[3], s.d);   \
        x += 4;                                     \
    } while (0)
#define TWO_OF_INT16 0
#define TWO_OF_INT8 1
#define NEXT_EIGHT(two)                             \
    for (int32_t k_ = 0; k_ < 4; ++k_) {            \
        if (two) {                                  \
            const uint32_t four_ = *w++;            \
            FOUR_PRODUCTS(even_bytes(four_));       \
            FOUR_PRODUCTS(odd_bytes(four_));        \
        } else {                                    \
            FOUR_PRODUCTS(*w++);                    \
            FOUR_PRODUCTS(*w++);                    \
        }                                           \
    }
#define FIRST_EIGHT(two)                            \
    s.a = s.b = s.c = s.d = (int32_t)*w++;          \
    NEXT_EIGHT(two)
#endif

/* Four sums as results: by multiplier, shift and offset, which are the next words. */
#if KBNN_DSP
#define RESULTS()                                                                                              \
    __asm__ volatile("ldmia %[w]!, {r4, r5, r6}\n\t"                                                           \
                     "smmlar %[a], %[a], r4, r6\n\tasr %[a], %[a], r5\n\tssat %[a], #8, %[a]\n\t"             \
                     "smmlar %[b], %[b], r4, r6\n\tasr %[b], %[b], r5\n\tssat %[b], #8, %[b]\n\t"             \
                     "smmlar %[c], %[c], r4, r6\n\tasr %[c], %[c], r5\n\tssat %[c], #8, %[c]\n\t"             \
                     "smmlar %[d], %[d], r4, r6\n\tasr %[d], %[d], r5\n\tssat %[d], #8, %[d]"                  \
                     : [a] "+r"(s.a), [b] "+r"(s.b), [c] "+r"(s.c), [d] "+r"(s.d), [w] "+r"(w)                 \
                     :                                                                                         \
                     : "r4", "r5", "r6", "cc")
#else
#define RESULTS()                                                                          \
    do {                                                                                   \
        const int32_t multiplier_ = (int32_t)w[0];                                         \
        const int32_t shift_ = (int32_t)w[1];                                              \
        const int32_t offset_ = (int32_t)w[2];                                             \
        w += 3;                                                                            \
        s.a = saturated(add_high_word(s.a, multiplier_, offset_) >> shift_);               \
        s.b = saturated(add_high_word(s.b, multiplier_, offset_) >> shift_);               \
        s.c = saturated(add_high_word(s.c, multiplier_, offset_) >> shift_);               \
        s.d = saturated(add_high_word(s.d, multiplier_, offset_) >> shift_);               \
    } while (0)
#endif

typedef struct {
    int32_t filters;
    int32_t more; /* words of a patch after the first eight, by eight */
    int32_t to1;  /* from the first pixel's results to the others'; where there is no other, to the last one's */
    int32_t to2;
    int32_t to3;
} block;

static block block_of(const kbnn_conv_params *p, int32_t left) {
    block b;
    b.filters = p->count;
    b.more = p->patch_words / 8 - 1;
    b.to1 = left > 1 ? b.filters : 0;
    b.to2 = b.to1 + (left > 2 ? b.filters : 0);
    b.to3 = b.to2 + (left > 3 ? b.filters : 0);
    return b;
}

/* Filters as expand_filters leaves them, on four patches of eight words or more. */
KBNN_INLINE void filter_words(const block *b, const uint32_t *w, const uint32_t *patches, int8_t *out, int eight) {
    for (const int8_t *const end = out + b->filters; out != end; ++out) {
        const uint32_t *x = patches;
        four_sums s;
        FIRST_EIGHT(TWO_OF_INT16);
        if (!eight) {
            int32_t k = b->more;
            do {
                NEXT_EIGHT(TWO_OF_INT16);
            } while (--k != 0);
        }
        RESULTS();
        STORE_BYTE(out, b->to3, s.d);
        STORE_BYTE(out, b->to2, s.c);
        STORE_BYTE(out, b->to1, s.b);
        out[0] = (int8_t)s.a;
    }
}

static void filter_expanded(const kbnn_conv_params *p, const uint32_t *w, const uint32_t *patches, int32_t left, int8_t *out) {
    const block b = block_of(p, left);
    BARRIER();
    if (b.more == 0) {
        filter_words(&b, w, patches, out, 1);
    } else {
        filter_words(&b, w, patches, out, 0);
    }
}

/* Filters as they are stored, on four patches; `any` as TensorFlow Lite scales them. */
KBNN_INLINE void filter_stored(const kbnn_conv_params *p, const uint32_t *patches, int32_t left, int8_t *out, int any) {
    const block b = block_of(p, left);
    const int32_t twice_zero = 2 * p->out_zero + 1;
    const uint32_t *w = p->weights;
    BARRIER();
    for (const int8_t *const end = out + b.filters; out != end; ++out) {
        const uint32_t *x = patches;
        int32_t multiplier, shift;
        four_sums s;
        FIRST_EIGHT(TWO_OF_INT8);
        for (int32_t k = b.more; k != 0; --k) {
            NEXT_EIGHT(TWO_OF_INT8);
        }
        multiplier = (int32_t)*w++;
        shift = (int32_t)*w++;
        if (any) {
            s.a = clamped(rescaled_up(s.a, multiplier, shift) + p->out_zero, p->low, p->high);
            s.b = clamped(rescaled_up(s.b, multiplier, shift) + p->out_zero, p->low, p->high);
            s.c = clamped(rescaled_up(s.c, multiplier, shift) + p->out_zero, p->low, p->high);
            s.d = clamped(rescaled_up(s.d, multiplier, shift) + p->out_zero, p->low, p->high);
        } else {
            const int32_t offset = (twice_zero * (int32_t)(UINT32_C(1) << shift)) >> 1;
            s.a = saturated(add_high_word(s.a, multiplier, offset) >> shift);
            s.b = saturated(add_high_word(s.b, multiplier, offset) >> shift);
            s.c = saturated(add_high_word(s.c, multiplier, offset) >> shift);
            s.d = saturated(add_high_word(s.d, multiplier, offset) >> shift);
        }
        STORE_BYTE(out, b.to3, s.d);
        STORE_BYTE(out, b.to2, s.c);
        STORE_BYTE(out, b.to1, s.b);
        out[0] = (int8_t)s.a;
    }
}

/* Weights in int16 and doubled, and the offset that multiplier and shift go with. */
static void expand_filters(const kbnn_conv_params *p, uint32_t *out) {
    const uint32_t *w = p->weights;
    for (int32_t f = p->count; f > 0; --f) {
        *out++ = *w++;
        for (int32_t k = p->patch_words; k > 0; k -= 2) {
            const uint32_t four = *w++;
            *out++ = doubled_pair(even_bytes(four));
            *out++ = doubled_pair(odd_bytes(four));
        }
        out[0] = *w++;
        out[1] = *w++;
        out[2] = (uint32_t)(((2 * p->out_zero + 1) * (int32_t)(UINT32_C(1) << out[1])) >> 1);
        out += 3;
    }
}

enum { EXPANDED, STORED, ANY };

/* A row of output, four pixels at a time. */
KBNN_INLINE void convolve(const kbnn_step *step, int32_t y, const kbnn_memory *memory, int kind) {
    const kbnn_conv_params *p = (const kbnn_conv_params *)step->params;
    uint32_t *ring = scratch_of(step, memory);
    uint32_t *patches = ring + (int32_t)p->kernel_height * p->ring_words * p->phases;
    uint32_t *filters = patches + 4 * p->patch_words;
    int8_t *out = (int8_t *)row_of(step->out, y, memory);
    if (kind == EXPANDED && y == 0) {
        expand_filters(p, filters);
    }
    expand_rows(step, y, memory, kind == STORED);
    for (int32_t left = p->out_width; left > 0; left -= 4, out += 4 * (int32_t)p->count) {
        gather_four(p, ring, y, (int32_t)p->out_width - left, left, patches);
        if (kind == EXPANDED) {
            filter_expanded(p, filters, patches, left, out);
        } else {
            filter_stored(p, patches, left, out, kind == ANY);
        }
    }
}

void kbnn_conv(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    convolve(step, y, memory, EXPANDED);
}

void kbnn_conv_large(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    convolve(step, y, memory, STORED);
}

void kbnn_conv_any(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    convolve(step, y, memory, ANY);
}

void kbnn_dense(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_dense_params *p = (const kbnn_dense_params *)step->params;
    const int8_t *values = (const int8_t *)row_of(step->in0, y, memory);
    int8_t *out = (int8_t *)row_of(step->out, y, memory);
    const uint32_t *weights = p->weights;
    for (int32_t f = 0; f < (int32_t)p->outputs; ++f) {
        const kbnn_filter *by = &p->filters[f];
        int32_t sum = by->bias;
        int32_t k = 0;
        for (; k + 4 <= (int32_t)p->inputs; k += 4) {
            const uint32_t four = *weights++;
            sum = multiply_pairs(even_bytes(four), pair_of(values[k], values[k + 2]), sum);
            sum = multiply_pairs(odd_bytes(four), pair_of(values[k + 1], values[k + 3]), sum);
        }
        if (k < (int32_t)p->inputs) {
            uint32_t four = *weights++;
            for (; k < (int32_t)p->inputs; ++k, four >>= 8) {
                sum += low_half(even_bytes(four)) * values[k];
            }
        }
        sum = rescaled_up(sum, by->multiplier, by->shift) + p->out_zero;
        out[f] = (int8_t)clamped(sum, p->low, p->high);
    }
}

/* ---- Value by value --------------------------------------------------------------------------------------------- */

void kbnn_add(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_add_params *p = (const kbnn_add_params *)step->params;
    const int8_t *a = (const int8_t *)row_of(step->in0, y, memory);
    const int8_t *b = (const int8_t *)row_of(step->in1, y, memory);
    int8_t *out = (int8_t *)row_of(step->out, y, memory);
    const int32_t a_multiplier = p->a_multiplier;
    const int32_t b_multiplier = p->b_multiplier;
    const int32_t offset = p->offset;
    const int32_t shift = p->shift;
    for (int32_t k = p->values; k > 0; --k) {
        *out++ = (int8_t)saturated((*a++ * a_multiplier + *b++ * b_multiplier + offset) >> shift);
    }
}

void kbnn_add_wide(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_add_wide_params *p = (const kbnn_add_wide_params *)step->params;
    const int8_t *a = (const int8_t *)row_of(step->in0, y, memory);
    const int8_t *b = (const int8_t *)row_of(step->in1, y, memory);
    int8_t *out = (int8_t *)row_of(step->out, y, memory);
    for (int32_t k = p->values; k > 0; --k) {
        const int64_t sum = (int64_t)*a++ * p->a_multiplier + (int64_t)*b++ * p->b_multiplier + p->offset;
        *out++ = (int8_t)saturated((int32_t)(sum >> p->shift));
    }
}

void kbnn_add_exact(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_add_exact_params *p = (const kbnn_add_exact_params *)step->params;
    const int8_t *a = (const int8_t *)row_of(step->in0, y, memory);
    const int8_t *b = (const int8_t *)row_of(step->in1, y, memory);
    int8_t *out = (int8_t *)row_of(step->out, y, memory);
    for (int32_t k = p->values; k > 0; --k) {
        int32_t sum = rescaled((*a++ - p->zero[0]) * (1 << 20), p->multiplier[0], p->shift[0]);
        sum += rescaled((*b++ - p->zero[1]) * (1 << 20), p->multiplier[1], p->shift[1]);
        *out++ = (int8_t)clamped(rescaled(sum, p->multiplier[2], p->shift[2]) + p->zero[2], p->low, p->high);
    }
}

void kbnn_affine(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_affine_params *p = (const kbnn_affine_params *)step->params;
    const int8_t *values = (const int8_t *)row_of(step->in0, y, memory);
    int8_t *out = (int8_t *)row_of(step->out, y, memory);
    for (int32_t x = p->width; x > 0; --x) {
        const kbnn_channel *above = p->above;
        const kbnn_channel *above_end = above + p->above_channels;
        const kbnn_channel *below = p->below;
        for (int32_t c = p->channels; c > 0; --c, ++below) {
            const int32_t value = *values++;
            const kbnn_channel *by = value < p->split ? below : above;
            *out++ = (int8_t)clamped((value * by->multiplier + by->offset) >> p->shift, p->low, p->high);
            if (++above == above_end) {
                above = p->above;
            }
        }
    }
}

void kbnn_table(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_table_params *p = (const kbnn_table_params *)step->params;
    const int8_t *values = (const int8_t *)row_of(step->in0, y, memory);
    int8_t *out = (int8_t *)row_of(step->out, y, memory);
    for (int32_t x = p->width; x > 0; --x) {
        int32_t table = 0;
        for (int32_t c = p->channels; c > 0; --c) {
            *out++ = p->table[table * 256 + *values++ + 128];
            if (++table == (int32_t)p->tables) {
                table = 0;
            }
        }
    }
}

void kbnn_channels(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_channels_params *p = (const kbnn_channels_params *)step->params;
    const int8_t *a = (const int8_t *)row_of(step->in0, y, memory);
    const int8_t *b = (const int8_t *)row_of(step->in1, y, memory);
    int8_t *out = (int8_t *)row_of(step->out, y, memory);
    for (int32_t x = p->width; x > 0; --x, a += p->channels0, b += p->channels1) {
        for (int32_t c = 0; c < (int32_t)p->channels; ++c) {
            const int32_t source = p->source[c];
            *out++ = source < 0                           ? p->constant
                     : source < (int32_t)p->channels0 ? a[source]
                                                      : b[source - (int32_t)p->channels0];
        }
    }
}

void kbnn_flatten(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_flatten_params *p = (const kbnn_flatten_params *)step->params;
    unsigned char *out = row_of(step->out, y, memory);
    for (int32_t i = 0; i < (int32_t)p->rows; ++i) {
        const unsigned char *row = row_of(step->in0, i, memory);
        for (uint32_t k = 0; k < p->bytes; ++k) {
            *out++ = row[k];
            KEEP_LOOP();
        }
    }
}

/* ---- Pooling ---------------------------------------------------------------------------------------------------- */

typedef struct {
    int32_t top, bottom, left, right;
} window;

static window window_of(const kbnn_pool_params *p, int32_t y, int32_t x) {
    const int32_t top = y * p->stride_y - p->pad_top;
    const int32_t left = x * p->stride_x - p->pad_left;
    const int32_t bottom = top + p->size_y;
    const int32_t right = left + p->size_x;
    window found;
    found.top = top < 0 ? 0 : top;
    found.left = left < 0 ? 0 : left;
    found.bottom = bottom > (int32_t)p->height ? (int32_t)p->height : bottom;
    found.right = right > (int32_t)p->width ? (int32_t)p->width : right;
    return found;
}

void kbnn_average_pool(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_pool_params *p = (const kbnn_pool_params *)step->params;
    const int32_t channels = p->channels;
    int8_t *out = (int8_t *)row_of(step->out, y, memory);
    for (int32_t x = 0; x < (int32_t)p->out_width; ++x) {
        const window w = window_of(p, y, x);
        const int32_t count = (w.bottom - w.top) * (w.right - w.left);
        for (int32_t c = 0; c < channels; ++c) {
            int32_t sum = 0;
            for (int32_t i = w.top; i < w.bottom; ++i) {
                const int8_t *row = (const int8_t *)row_of(step->in0, i, memory) + c;
                for (int32_t j = w.left; j < w.right; ++j) {
                    sum += row[j * channels];
                }
            }
            sum = (sum > 0 ? sum + count / 2 : sum - count / 2) / count;
            *out++ = (int8_t)clamped(sum, p->low, p->high);
        }
    }
}

void kbnn_max_pool(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_pool_params *p = (const kbnn_pool_params *)step->params;
    const int32_t channels = p->channels;
    int8_t *out = (int8_t *)row_of(step->out, y, memory);
    for (int32_t x = 0; x < (int32_t)p->out_width; ++x) {
        const window w = window_of(p, y, x);
        for (int32_t c = 0; c < channels; ++c) {
            int32_t largest = -128;
            for (int32_t i = w.top; i < w.bottom; ++i) {
                const int8_t *row = (const int8_t *)row_of(step->in0, i, memory) + c;
                for (int32_t j = w.left; j < w.right; ++j) {
                    if (row[j * channels] > largest) {
                        largest = row[j * channels];
                    }
                }
            }
            *out++ = (int8_t)clamped(largest, p->low, p->high);
        }
    }
}

/* The largest sign is +1 unless all are -1. */
void kbnn_max_pool_bits(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_pool_params *p = (const kbnn_pool_params *)step->params;
    const int32_t words = p->channels;
    uint32_t *out = WORD_AT(row_of(step->out, y, memory), 0);
    for (int32_t x = 0; x < (int32_t)p->out_width; ++x) {
        const window w = window_of(p, y, x);
        for (int32_t c = 0; c < words; ++c) {
            uint32_t all = 0xFFFFFFFFu;
            for (int32_t i = w.top; i < w.bottom; ++i) {
                const uint32_t *row = WORD_AT(row_of(step->in0, i, memory), 0) + c;
                for (int32_t j = w.left; j < w.right; ++j) {
                    all &= row[j * words];
                }
            }
            *out++ = all;
        }
    }
}

void kbnn_mean(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_mean_params *p = (const kbnn_mean_params *)step->params;
    const int32_t channels = p->channels;
    int8_t *out = (int8_t *)row_of(step->out, y, memory);
    for (int32_t c = 0; c < channels; ++c) {
        int32_t sum = p->offset;
        for (int32_t i = 0; i < (int32_t)p->height; ++i) {
            const int8_t *row = (const int8_t *)row_of(step->in0, i, memory) + c;
            for (int32_t j = 0; j < (int32_t)p->width; ++j) {
                sum += row[j * channels];
            }
        }
        out[c] = (int8_t)saturated(rescaled(sum, p->multiplier, p->shift) + p->out_zero);
    }
}

/* ---- Layer normalization ---------------------------------------------------------------------------------------- */

/* Products and sums must not be contracted, which rounds once where the file's interpreter rounds twice. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#define UNCONTRACTED
#elif defined(__GNUC__)
#define UNCONTRACTED __attribute__((optimize("fp-contract=off")))
#else
#define UNCONTRACTED
#endif

typedef union {
    float value;
    uint32_t bits;
} single;

static uint32_t bits_of_float(float value) {
    single s;
    s.value = value;
    return s.bits;
}

static float float_of_bits(uint32_t bits) {
    single s;
    s.bits = bits;
    return s.value;
}

/* The square root of a positive normal number, rounded to nearest. */
static float square_root(float x) {
    const uint32_t bits = bits_of_float(x);
    int32_t exponent = (int32_t)(bits >> 23) - 150;
    uint64_t mantissa = (uint64_t)((bits & 0x7FFFFFu) | 0x800000u) << 26;
    uint64_t root = 0;
    if (exponent & 1) {
        mantissa <<= 1;
        exponent -= 1;
    }
    for (uint64_t bit = UINT64_C(1) << 26; bit != 0; bit >>= 1) {
        const uint64_t candidate = root | bit;
        if (candidate * candidate <= mantissa) {
            root = candidate;
        }
    }
    /* A last bit that says whether something is left makes the conversion round correctly. */
    root = (root << 1) | (root * root != mantissa ? 1u : 0u);
    return (float)(uint32_t)root * float_of_bits((uint32_t)(127 + (exponent - 26) / 2 - 1) << 23);
}

/* To the nearest, halves away from zero; what is far out of int8's range may be anything out of it. */
static int32_t nearest(float value) {
    const float bounded = value > 512.0f ? 512.0f : value < -512.0f ? -512.0f : value;
    const int32_t whole = (int32_t)bounded;
    const float rest = bounded - (float)whole;
    return whole + (rest >= 0.5f) - (rest <= -0.5f);
}

UNCONTRACTED static float scaled_sum(const kbnn_float_scaled *scaled, uint32_t sum, int32_t filter) {
    const float product = (float)clamped(2 * (int32_t)sum, scaled->low, scaled->high) * scaled->multiplier[filter];
    return product + scaled->offset[filter];
}

UNCONTRACTED void kbnn_write_float(const void *params, const uint32_t *sums, int32_t filters, void *pixel) {
    float *out = (float *)pixel;
    for (int32_t f = 0; f < filters; ++f) {
        out[f] = scaled_sum((const kbnn_float_scaled *)params, sums[f], f);
    }
}

UNCONTRACTED void kbnn_write_rounded(const void *params, const uint32_t *sums, int32_t filters, void *pixel) {
    int8_t *out = (int8_t *)pixel;
    for (int32_t f = 0; f < filters; ++f) {
        out[f] = (int8_t)saturated(nearest(scaled_sum((const kbnn_float_scaled *)params, sums[f], f)));
    }
}

UNCONTRACTED void kbnn_moments(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_normalize_params *p = (const kbnn_normalize_params *)step->params;
    uint32_t *out = WORD_AT(row_of(step->out, y, memory), 0);
    const float pixels = (float)((int32_t)p->height * (int32_t)p->width);
    const float channels = (float)p->channels;
    float mean = 0.0f;
    float square = 0.0f;
    for (int32_t c = 0; c < (int32_t)p->channels; ++c) {
        float sum = 0.0f;
        float squares = 0.0f;
        for (int32_t i = 0; i < (int32_t)p->height; ++i) {
            const int8_t *value = (const int8_t *)row_of(step->in0, i, memory) + c;
            for (int32_t j = 0; j < (int32_t)p->width; ++j, value += p->channels) {
                const float product = (float)*value * p->step;
                const float x = product - p->zero;
                const float squared = x * x;
                sum = sum + x;
                squares = squares + squared;
            }
        }
        sum = sum / pixels;
        squares = squares / pixels;
        mean = mean + sum;
        square = square + squares;
    }
    mean = mean / channels;
    square = square / channels;
    {
        const float squared = mean * mean;
        const float variance = square - squared;
        const float factor = 1.0f / square_root(variance + p->epsilon);
        for (int32_t c = 0; c < (int32_t)p->channels; ++c) {
            const float scale = p->scale == 0 ? factor : factor * p->scale[c];
            const float shift = mean * scale;
            *out++ = bits_of_float(scale);
            *out++ = bits_of_float(p->offset == 0 ? shift : p->offset[c] - shift);
        }
    }
}

UNCONTRACTED void kbnn_normalize(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_normalize_params *p = (const kbnn_normalize_params *)step->params;
    const int8_t *values = (const int8_t *)row_of(step->in0, y, memory);
    int8_t *out = (int8_t *)row_of(step->out, y, memory);
    for (int32_t x = p->width; x > 0; --x) {
        const uint32_t *moment = WORD_AT(row_of(step->in1, 0, memory), 0);
        for (int32_t c = p->channels; c > 0; --c, moment += 2) {
            const float product = (float)*values++ * p->step;
            const float value = product - p->zero;
            const float scaled = value * float_of_bits(moment[0]);
            const float shift = float_of_bits(moment[1]);
            const float result = (p->offset == 0 ? scaled - shift : scaled + shift) / p->out_step;
            *out++ = (int8_t)saturated(nearest(result) + p->out_zero);
        }
    }
}
