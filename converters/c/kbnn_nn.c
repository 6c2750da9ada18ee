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

/* Vectors of 128 bits (Helium), integer operations. */
#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1) && defined(__GNUC__)
#include <arm_mve.h>
#define KBNN_MVE 1
#else
#define KBNN_MVE 0
#endif

#if defined(__GNUC__) && defined(__thumb2__)
#define KBNN_THUMB2 1
#else
#define KBNN_THUMB2 0
#endif

/* Whether four int8 values in memory are a word with the first value in its lowest byte. Where the compiler does not say,
 * bytes are read one by one. */
#if defined(__BYTE_ORDER__) && defined(__ORDER_LITTLE_ENDIAN__)
#define KBNN_LITTLE_ENDIAN (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)
#else
#define KBNN_LITTLE_ENDIAN 0
#endif

/* Does not compile where an int has 16 bits, or where negative numbers are not shifted as signed ones: results would be
 * wrong there. */
typedef char kbnn_needs_int_of_32_bits[sizeof(int) >= 4 && (-1 >> 1) == -1 ? 1 : -1];

/* A population count in one instruction. On other cores carry-save adders are faster than the compiler's function. */
#if defined(__GNUC__) && (defined(__riscv_zbb) || defined(__POPCNT__) || defined(__aarch64__))
#define KBNN_POPCOUNT 1
#else
#define KBNN_POPCOUNT 0
#endif

/* For functions in inner loops, which some optimization levels would not inline. */
#if defined(__GNUC__)
#define KBNN_INLINE static inline __attribute__((always_inline))
#else
#define KBNN_INLINE static inline
#endif

/* For the loops that take most of the time: GCC optimizes them for speed even at -Os. */
#if defined(__GNUC__) && !defined(__clang__)
#define KBNN_HOT __attribute__((optimize("O2")))
#else
#define KBNN_HOT
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

static int32_t clamped(int32_t value, int32_t low, int32_t high) {
    return value > high ? high : value < low ? low : value;
}

static int32_t high_word(int32_t a, int32_t b) {
    return (int32_t)(((int64_t)a * b) >> 32);
}

#if !KBNN_DSP
/* The lower and the upper half of a word as int16. */
static int32_t low_half(uint32_t pair) {
    return (int16_t)(uint16_t)(pair & 0xFFFFu);
}

static int32_t high_half(uint32_t pair) {
    return (int32_t)pair >> 16;
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
    return pair_of((int8_t)(uint8_t)(word & 0xFFu), (int8_t)(uint8_t)((word >> 16) & 0xFFu));
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

/* Four values as the bytes of a word; they need not be aligned. */
static uint32_t word_of_bytes(const int8_t *values) {
    return (uint32_t)(uint8_t)values[0] | ((uint32_t)(uint8_t)values[1] << 8) | ((uint32_t)(uint8_t)values[2] << 16) |
           ((uint32_t)(uint8_t)values[3] << 24);
}

#if !KBNN_DSP
/* sum + the products of the halves. */
static int32_t multiply_pairs(uint32_t a, uint32_t b, int32_t sum) {
    return sum + low_half(a) * low_half(b) + high_half(a) * high_half(b);
}
#endif

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
KBNN_INLINE uint32_t bytes_in(uint32_t word) {
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
    const kbnn_step *steps = network->steps;
    kbnn_memory memory;
    if (image == 0 || scores == 0 || arena == 0) {
        return KBNN_NULL_ARGUMENT;
    }
    if (((uintptr_t)arena & 3u) != 0) {
        return KBNN_MISALIGNED_ARENA;
    }
    memory.rows = network->rows;
    memory.base[KBNN_ARENA] = (unsigned char *)arena;
    memory.base[KBNN_IMAGE] = (unsigned char *)(uintptr_t)image; /* only read */
    memory.base[KBNN_SCORES] = (unsigned char *)scores;
    for (int32_t k = network->count; k > 0; --k, ++pass) {
        const kbnn_step *const end = steps + pass->count;
        for (int32_t y = 0; y < (int32_t)pass->rows; ++y) {
            for (const kbnn_step *step = steps; step != end; ++step) {
                step->kernel(step, y, &memory);
            }
        }
        steps = end;
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

/* The functions below count for one filter or, with MVE, for four, one per lane. `filter_at` points to the next words. */
#if KBNN_MVE
typedef uint32x4_t lanes;
typedef uint32x4_t filter_at; /* addresses minus 4 */
#else
typedef uint32_t lanes;
typedef const uint32_t *filter_at;
#endif

#if KBNN_MVE
#define DIFFERENCES(d0, d1, d2, x, w)                                   \
    const lanes d0 = next_of_four(&(w)) ^ vdupq_n_u32((x)[0]);          \
    const lanes d1 = next_of_four(&(w)) ^ vdupq_n_u32((x)[1]);          \
    const lanes d2 = next_of_four(&(w)) ^ vdupq_n_u32((x)[2]);          \
    (x) += 3
/* Computes values here. Without it the compiler reorders the work and runs out of registers. */
#define NOW(a, b) __asm__ volatile("" : "+w"(a), "+w"(b))

/* The next word of each of four filters. */
KBNN_INLINE lanes next_of_four(filter_at *w) {
    lanes words;
    __asm__ volatile("vldrw.u32 %q0, [%q1, #4]!" : "=&w"(words), "+w"(*w) : : "memory");
    return words;
}
#define SAME(word) vdupq_n_u32(word)
#elif KBNN_THUMB2
/* Loads three words of a patch and three of a filter with one instruction each, advances both pointers, and takes the
 * differences. The barriers of the function around it keep the blocks in place. */
#define DIFFERENCES(d0, d1, d2, x, w)                                                     \
    register uint32_t d0 __asm__("r4");                                                   \
    register uint32_t d1 __asm__("r5");                                                   \
    register uint32_t d2 __asm__("r6");                                                   \
    __asm__ volatile("ldmia %[from]!, {r4, r5, r6}\n\tldmia %[by]!, {r8, r9, r10}\n\t"    \
                     "eor r4, r4, r8\n\teor r5, r5, r9\n\teor r6, r6, r10"                \
                     : "=r"(d0), "=r"(d1), "=r"(d2), [from] "+r"(x), [by] "+r"(w)         \
                     :                                                                    \
                     : "r8", "r9", "r10")
/* Computes values here. Without it the compiler reorders the work and runs out of registers. */
#define NOW(a, b) __asm__ volatile("" : "+r"(a), "+r"(b))
#else
#define DIFFERENCES(d0, d1, d2, x, w)           \
    const uint32_t d0 = (x)[0] ^ (w)[0];        \
    const uint32_t d1 = (x)[1] ^ (w)[1];        \
    const uint32_t d2 = (x)[2] ^ (w)[2];        \
    (x) += 3;                                   \
    (w) += 3
#define NOW(a, b) (void)0
#endif

#if !KBNN_MVE
#define SAME(word) (word)
#endif

/* sum and carry of a + b + d, bit by bit. */
#define FULL_ADDER(sum, carry, a, b, d)          \
    do {                                         \
        const lanes b_ = (b);                    \
        const lanes d_ = (d);                    \
        const lanes ab_ = (a) ^ b_;              \
        sum = ab_ ^ d_;                          \
        carry = (ab_ & (b_ ^ d_)) ^ b_;          \
        NOW(sum, carry);                         \
    } while (0)

/* A full adder of a, b and d, given a ^ b, b and b ^ d. */
#define TRIPLE(sum, carry, ab, b, bd)     \
    do {                                  \
        sum = (ab) ^ (bd) ^ (b);          \
        carry = ((ab) & (bd)) ^ (b);      \
        NOW(sum, carry);                  \
    } while (0)

/* The sum and the carry of the next three words. */
#define THREE(sum, carry, x, w)             \
    do {                                    \
        DIFFERENCES(d0_, d1_, d2_, x, w);   \
        TRIPLE(sum, carry, d0_, d1_, d2_);  \
    } while (0)

#if KBNN_POPCOUNT

KBNN_INLINE uint32_t bits_of(uint32_t word) {
    return (uint32_t)__builtin_popcount(word);
}

KBNN_INLINE lanes count_3(const uint32_t *x, filter_at *w) {
    uint32_t ones, twos;
    THREE(ones, twos, x, *w);
    return bits_of(ones) + 2u * bits_of(twos);
}

KBNN_INLINE lanes count_6(const uint32_t *x, filter_at *w) {
    const uint32_t first = count_3(x, w);
    return first + count_3(x + 3, w);
}

KBNN_INLINE lanes count_9(const uint32_t *x, filter_at *w) {
    const uint32_t first = count_6(x, w);
    return first + count_3(x + 6, w);
}

KBNN_INLINE lanes count_18(const uint32_t *x, filter_at *w) {
    const uint32_t first = count_9(x, w);
    return first + count_9(x + 9, w);
}

#else

/* Bit counts in fields of 4 and of 8 bits. The masks are kept in registers, because an instruction cannot both shift an
 * operand and take a constant. */
KBNN_INLINE lanes held(uint32_t constant) {
#if KBNN_MVE
    return vreinterpretq_u32_u8(vdupq_n_u8((uint8_t)(constant & 0xFFu)));
#else
#if KBNN_THUMB2
    __asm__ volatile("" : "+r"(constant));
#endif
    return constant;
#endif
}

/* The sum of the four bytes of a lane. */
KBNN_INLINE lanes sum_of_bytes(lanes word) {
#if KBNN_MVE
    const lanes halves = (word & 0x00FF00FFu) + ((word >> 8) & 0x00FF00FFu);
    return (halves + (halves >> 16)) & 0xFFFFu;
#else
    return bytes_in(word);
#endif
}

KBNN_INLINE lanes nibbles_of(lanes word, lanes in_pairs, lanes in_nibbles) {
    word -= (word >> 1) & in_pairs;
    return (word & in_nibbles) + ((word >> 2) & in_nibbles);
}

KBNN_INLINE lanes bytes_of(lanes nibbles, lanes in_bytes) {
    return (nibbles & in_bytes) + ((nibbles >> 4) & in_bytes);
}

KBNN_INLINE lanes count_3(const uint32_t *x, filter_at *w) {
    const lanes in_pairs = held(0x55555555u), in_nibbles = held(0x33333333u), in_bytes = held(0x0F0F0F0Fu);
    lanes ones, twos, nibbles;
    THREE(ones, twos, x, *w);
    nibbles = nibbles_of(ones, in_pairs, in_nibbles) + 2u * nibbles_of(twos, in_pairs, in_nibbles);
    return sum_of_bytes(bytes_of(nibbles, in_bytes));
}

KBNN_INLINE lanes count_6(const uint32_t *x, filter_at *w) {
    const lanes in_pairs = held(0x55555555u), in_nibbles = held(0x33333333u), in_bytes = held(0x0F0F0F0Fu);
    lanes s0, c0, s1, c1, ones, twos;
    THREE(s0, c0, x, *w);
    THREE(s1, c1, x, *w);
    ones = nibbles_of(s0, in_pairs, in_nibbles) + nibbles_of(s1, in_pairs, in_nibbles);
    twos = nibbles_of(c0, in_pairs, in_nibbles) + nibbles_of(c1, in_pairs, in_nibbles);
    return sum_of_bytes(bytes_of(ones, in_bytes) + 2u * bytes_of(twos, in_bytes));
}

KBNN_INLINE lanes count_9(const uint32_t *x, filter_at *w) {
    const lanes in_pairs = held(0x55555555u), in_nibbles = held(0x33333333u), in_bytes = held(0x0F0F0F0Fu);
    lanes s0, c0, s1, c1, s2, c2, ones, a, b, twos, fours;
    THREE(s0, c0, x, *w);
    THREE(s1, c1, x, *w);
    THREE(s2, c2, x, *w);
    FULL_ADDER(ones, a, s0, s1, s2);
    FULL_ADDER(b, fours, c0, c1, c2);
    /* ones + 2 * twos and twos + 2 * fours are at most 12. */
    ones = nibbles_of(ones, in_pairs, in_nibbles) + 2u * nibbles_of(a, in_pairs, in_nibbles);
    twos = nibbles_of(b, in_pairs, in_nibbles) + 2u * nibbles_of(fours, in_pairs, in_nibbles);
    return sum_of_bytes(bytes_of(ones, in_bytes) + 2u * bytes_of(twos, in_bytes));
}

KBNN_INLINE lanes count_18(const uint32_t *x, filter_at *w) {
    lanes s0, c0, s1, c1, s2, c2, s3, c3, s4, c4, ones, more_ones, more_twos;
    lanes a, b, d, f, g, h, twos, fours, eights;
    THREE(s0, c0, x, *w);
    THREE(s1, c1, x, *w);
    THREE(s2, c2, x, *w);
    FULL_ADDER(ones, a, s0, s1, s2);
    FULL_ADDER(b, f, c0, c1, c2);
    THREE(s3, c3, x, *w);
    THREE(s4, c4, x, *w);
    FULL_ADDER(ones, d, ones, s3, s4);
    FULL_ADDER(d, g, c3, c4, d);
    THREE(more_ones, more_twos, x, *w);
    FULL_ADDER(twos, h, a, b, d);
    FULL_ADDER(fours, eights, f, g, h);
    {
        const lanes in_pairs = held(0x55555555u), in_nibbles = held(0x33333333u), in_bytes = held(0x0F0F0F0Fu);
        lanes sum = nibbles_of(ones, in_pairs, in_nibbles) + nibbles_of(more_ones, in_pairs, in_nibbles);
        sum = bytes_of(sum, in_bytes);
        twos = nibbles_of(twos, in_pairs, in_nibbles) + nibbles_of(more_twos, in_pairs, in_nibbles);
        sum += 2u * bytes_of(twos, in_bytes);
        fours = nibbles_of(fours, in_pairs, in_nibbles) + 2u * nibbles_of(eights, in_pairs, in_nibbles);
        return sum_of_bytes(sum + 4u * bytes_of(fours, in_bytes));
    }
}

#endif

#if KBNN_MVE
/* The addresses of the next four filters of `words` words. If fewer are left, the last one repeats. */
KBNN_INLINE filter_at four_filters(const uint32_t *weights, int32_t words, int32_t left) {
    const uint32x4_t numbers = vminq_u32(vidupq_n_u32(0, 1), vdupq_n_u32((uint32_t)left - 1u));
    return vmulq_n_u32(numbers, 4u * (uint32_t)words) + ((uint32_t)(uintptr_t)weights - 4u);
}

/* Stores up to four values, one per filter that is left. */
KBNN_INLINE void store_sums(uint32_t *sums, lanes values, int32_t left) {
    vstrwq_p_u32(sums, values, vctp32q((uint32_t)left));
}

#define COUNT(name, length, function)                                                                           \
    void name(const uint32_t *patch, const uint32_t *weights, int32_t filters, int32_t words, uint32_t *sums) { \
        (void)words;                                                                                            \
        for (; filters > 0; filters -= 4, weights += 4 * (length), sums += 4) {                                 \
            filter_at four = four_filters(weights, length, filters);                                            \
            store_sums(sums, function(patch, &four), filters);                                                  \
        }                                                                                                       \
    }
#else
#define COUNT(name, length, function)                                                                           \
    void name(const uint32_t *patch, const uint32_t *weights, int32_t filters, int32_t words, uint32_t *sums) { \
        const uint32_t *const end = weights + filters * (length);                                               \
        (void)words;                                                                                            \
        BARRIER();                                                                                              \
        do {                                                                                                    \
            *sums++ = function(patch, &weights);                                                                \
        } while (weights != end);                                                                               \
        BARRIER();                                                                                              \
    }
#endif

COUNT(kbnn_count_3, 3, count_3)
COUNT(kbnn_count_6, 6, count_6)
COUNT(kbnn_count_9, 9, count_9)
COUNT(kbnn_count_18, 18, count_18)

/* The next half word of a filter, or of four, in both halves of a word. */
#if KBNN_MVE
typedef struct {
    const uint16_t *from;
    uint32x4_t places;
} halves_at;

KBNN_INLINE lanes next_twice(halves_at *w) {
    const lanes half = vldrhq_gather_shifted_offset_u32(w->from++, w->places);
    return vsliq_n_u32(half, half, 16);
}
#define NEXT_TWICE(w) next_twice(w)
#else
typedef const uint16_t *halves_at;

KBNN_INLINE uint32_t twice(uint32_t half) {
#if KBNN_DSP
    uint32_t result;
    __asm__("pkhbt %0, %1, %1, lsl #16" : "=r"(result) : "r"(half));
    return result;
#else
    return half | (half << 16);
#endif
}
#define NEXT_TWICE(w) twice(*(*(w))++)
#endif

/* Counts the bits of each half of a word separately; each count is in its half. */
KBNN_INLINE lanes bits_of_halves(lanes ones, lanes a, lanes b, lanes fours) {
#if KBNN_POPCOUNT
    const uint32_t low = bits_of(ones & 0xFFFFu) + 2u * (bits_of(a & 0xFFFFu) + bits_of(b & 0xFFFFu)) +
                         4u * bits_of(fours & 0xFFFFu);
    const uint32_t all = bits_of(ones) + 2u * (bits_of(a) + bits_of(b)) + 4u * bits_of(fours);
    return low | ((all - low) << 16);
#else
    const lanes in_pairs = held(0x55555555u), in_nibbles = held(0x33333333u), in_bytes = held(0x0F0F0F0Fu);
    lanes bytes;
    ones = nibbles_of(ones, in_pairs, in_nibbles) + 2u * nibbles_of(a, in_pairs, in_nibbles);
    fours = nibbles_of(b, in_pairs, in_nibbles) + 2u * nibbles_of(fours, in_pairs, in_nibbles);
    bytes = bytes_of(ones, in_bytes) + 2u * bytes_of(fours, in_bytes);
    return (bytes & 0x00FF00FFu) + ((bytes >> 8) & 0x00FF00FFu);
#endif
}

/* Counts for two pixels at once, one in each half of a word. A filter has nine halves. */
KBNN_INLINE lanes count_pair(const uint32_t *x, halves_at *w) {
    lanes s0, c0, s1, c1, s2, c2, ones, a, b, fours;
    s0 = SAME(x[0]) ^ NEXT_TWICE(w);
    s1 = SAME(x[1]) ^ NEXT_TWICE(w);
    s2 = SAME(x[2]) ^ NEXT_TWICE(w);
    TRIPLE(ones, c0, s0, s1, s2);
    s0 = SAME(x[3]) ^ NEXT_TWICE(w);
    s1 = SAME(x[4]) ^ NEXT_TWICE(w);
    s2 = SAME(x[5]) ^ NEXT_TWICE(w);
    TRIPLE(fours, c1, s0, s1, s2);
    s0 = SAME(x[6]) ^ NEXT_TWICE(w);
    s1 = SAME(x[7]) ^ NEXT_TWICE(w);
    s2 = SAME(x[8]) ^ NEXT_TWICE(w);
    TRIPLE(b, c2, s0, s1, s2);
    FULL_ADDER(ones, a, ones, fours, b);
    FULL_ADDER(b, fours, c0, c1, c2);
    return bits_of_halves(ones, a, b, fours);
}

KBNN_HOT void kbnn_count_pairs(const uint32_t *patch, const uint32_t *weights, int32_t filters, int32_t words, uint32_t *sums) {
    const uint16_t *halves = (const uint16_t *)(const void *)weights;
    (void)words;
#if KBNN_MVE
    uint32_t *second = sums + filters;
    for (; filters > 0; filters -= 4, halves += 4 * 9, sums += 4, second += 4) {
        halves_at four = {halves, vmulq_n_u32(vminq_u32(vidupq_n_u32(0, 1), vdupq_n_u32((uint32_t)filters - 1u)), 9)};
        const lanes both = count_pair(patch, &four);
        store_sums(sums, both & 0xFFFFu, filters);
        store_sums(second, both >> 16, filters);
    }
#else
    for (uint32_t *const end = sums + filters; sums != end; ++sums) {
        const uint32_t both = count_pair(patch, &halves);
        sums[0] = both & 0xFFFFu;
        sums[filters] = both >> 16;
    }
#endif
}

/* Counts over any multiple of 3 words. */
KBNN_INLINE lanes count_words(const uint32_t *x, filter_at *w, int32_t words) {
    lanes sum = SAME(0);
    for (; words >= 18; words -= 18, x += 18) {
        sum += count_18(x, w);
    }
    for (; words >= 9; words -= 9, x += 9) {
        sum += count_9(x, w);
    }
    for (; words >= 3; words -= 3, x += 3) {
        sum += count_3(x, w);
    }
    return sum;
}

void kbnn_count_any(const uint32_t *patch, const uint32_t *weights, int32_t filters, int32_t words, uint32_t *sums) {
    BARRIER();
#if KBNN_MVE
    for (; filters > 0; filters -= 4, weights += 4 * words, sums += 4) {
        filter_at four = four_filters(weights, words, filters);
        store_sums(sums, count_words(patch, &four, words), filters);
    }
#else
    for (uint32_t *const end = sums + filters; sums != end; ++sums) {
        *sums = count_words(patch, &weights, words);
    }
#endif
    BARRIER();
}

void kbnn_count_plain(const uint32_t *patch, const uint32_t *weights, int32_t filters, int32_t words, uint32_t *sums) {
    for (int32_t f = 0; f < filters; ++f) {
        uint32_t sum = 0;
        for (int32_t k = 0; k < words; ++k) {
            uint32_t word = patch[k] ^ *weights++;
            word -= (word >> 1) & 0x55555555u;
            word = (word & 0x33333333u) + ((word >> 2) & 0x33333333u);
            sum += bytes_in((word + (word >> 4)) & 0x0F0F0F0Fu);
        }
        sums[f] = sum;
    }
}

/* ---- From sums to outputs --------------------------------------------------------------------------------------- */

#if !KBNN_MVE
/* Scales a sum; `channel` holds the multiplier in its lower half and the offset in its upper half. */
KBNN_INLINE int32_t scaled_by(uint32_t sum, uint32_t channel, int32_t centre, int32_t shift, int32_t fraction) {
    const int32_t product = ((int16_t)((int32_t)sum - centre) * (int16_t)(channel & 0xFFFFu)) >> shift;
    return saturated((product + ((int32_t)channel >> 16)) >> fraction);
}
#endif

void kbnn_write_short(const void *params, uint32_t *sums, int32_t filters, void *pixel) {
    const kbnn_short *scaled = (const kbnn_short *)params;
    const uint32_t *channel = scaled->channels;
    const int32_t centre = scaled->centre;
    const int32_t shift = scaled->shift;
    const int32_t fraction = scaled->fraction;
    const uint32_t *sum = sums;
    int8_t *out = (int8_t *)pixel;
#if KBNN_MVE
    for (int32_t count = filters; count > 0; count -= 4, sum += 4, channel += 4, out += 4) {
        const mve_pred16_t left = vctp32q((uint32_t)count);
        const int32x4_t by = vreinterpretq_s32_u32(vldrwq_z_u32(channel, left));
        int32x4_t value = vreinterpretq_s32_u32(vldrwq_z_u32(sum, left)) - centre;
        value = vshlq_r_s32(value * vmovlbq_s16(vreinterpretq_s16_s32(by)), -shift) + (by >> 16);
        value = vmaxq_s32(vminq_s32(vshlq_r_s32(value, -fraction), vdupq_n_s32(127)), vdupq_n_s32(-128));
        vstrbq_p_s32(out, value, left);
    }
#else
    for (const uint32_t *const end = sums + filters; sum != end; ++sum) {
        *out++ = (int8_t)scaled_by(*sum, *channel++, centre, shift, fraction);
    }
#endif
    channel = scaled->channels + filters;
    out = (int8_t *)pixel;
    for (int32_t k = scaled->exceptions; k > 0; --k) {
        const uint32_t exception = *channel++;
        const uint32_t filter = exception >> 17;
        if (sums[filter] == ((exception >> 1) & 0xFFFFu)) {
            out[filter] = (int8_t)(out[filter] + ((exception & 1u) != 0 ? 1 : -1));
        }
    }
}

void kbnn_write_int8(const void *params, uint32_t *sums, int32_t filters, void *pixel) {
    const kbnn_scaled *scaled = (const kbnn_scaled *)params;
    const kbnn_channel *channel = scaled->channels;
    const int32_t shift = scaled->shift;
    int8_t *out = (int8_t *)pixel;
    for (const uint32_t *const end = sums + filters; sums != end; ++sums, ++channel) {
        *out++ = (int8_t)saturated(((int32_t)*sums * channel->multiplier + channel->offset) >> shift);
    }
}

void kbnn_write_wide(const void *params, uint32_t *sums, int32_t filters, void *pixel) {
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

void kbnn_write_bits(const void *params, uint32_t *sums, int32_t filters, void *pixel) {
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

void kbnn_write_limited(const void *params, uint32_t *sums, int32_t filters, void *pixel) {
    const kbnn_limited *limited = (const kbnn_limited *)params;
    const uint32_t low = limited->low;
    const uint32_t high = limited->high;
    for (int32_t f = 0; f < filters; ++f) {
        sums[f] = sums[f] < low ? low : sums[f] > high ? high : sums[f];
    }
    limited->write(limited->output, sums, filters, pixel);
}

/* ---- Binary convolution ----------------------------------------------------------------------------------------- */

/* The signs of `count` values, from 1 to 32. */
static uint32_t signs_of(const int8_t *values, int32_t count, int32_t zero) {
#if KBNN_MVE
    /* Comparing 16 bytes gives 16 bits. */
    const mve_pred16_t first = vctp8q((uint32_t)count);
    uint32_t word = vcmpltq_m_n_s8(vldrbq_z_s8(values, first), (int8_t)zero, first);
    if (count > 16) {
        const mve_pred16_t second = vctp8q((uint32_t)count - 16u);
        word |= (uint32_t)vcmpltq_m_n_s8(vldrbq_z_s8(values + 16, second), (int8_t)zero, second) << 16;
    }
    return word;
#else
    uint32_t word = 0;
    int32_t k = count;
    for (; k >= 4; k -= 4, values += 4) {
        word >>= 4;
        word |= ((uint32_t)(values[0] - zero) >> 31) << 28;
        word |= ((uint32_t)(values[1] - zero) >> 31) << 29;
        word |= ((uint32_t)(values[2] - zero) >> 31) << 30;
        word |= (uint32_t)(values[3] - zero) & 0x80000000u;
    }
    for (; k > 0; --k) {
        word = (word >> 1) | ((uint32_t)(*values++ - zero) & 0x80000000u);
    }
    return word >> (32 - count);
#endif
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

static void signs_of_row(const kbnn_bconv_shape *p, int32_t zero, const int8_t *values, uint32_t *words) {
    const int32_t channels = p->channels;
    for (int32_t x = p->width; x > 0; --x) {
        for (int32_t left = channels; left > 0; left -= 32) {
            const int32_t count = left < 32 ? left : 32;
            *words++ = signs_of(values, count, zero);
            values += count;
        }
    }
}

/* Fills the ring with rows of signs up to the last one that output row y reads. Row r is at (r + pad_top) % rows. Padding
 * is +1, stored as 0. */
enum { OF_INT8, OF_BITS, MASKED };

static void fill_ring(const kbnn_step *step, int32_t y, const kbnn_memory *memory, int kind) {
    const kbnn_bconv_params *params = (const kbnn_bconv_params *)step->params;
    const kbnn_bconv_shape *p = params->shape;
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
        if (kind == OF_BITS) {
            const uint32_t *bits = WORD_AT(row_of(step->in0, row, memory), 0);
            for (int32_t k = 0; k < inside; ++k) {
                words[before + k] = bits[k];
                KEEP_LOOP();
            }
        } else {
            signs_of_row(p, params->zero, (const int8_t *)row_of(step->in0, row, memory), words + before);
            if (kind == MASKED) {
                const uint32_t *mask = ((const kbnn_masked_params *)step->params)->mask;
                for (int32_t k = 0; k < inside; ++k) {
                    words[before + k] &= mask[k % p->words];
                }
            }
        }
    }
}

/* Fills a patch up with zeros and turns its words (a, b, c) into triples (a ^ b, b, b ^ c), as filters are stored. */
static void finish_patch(const kbnn_bconv_shape *p, uint32_t *words, uint32_t *end) {
    int32_t count = p->patch_words;
    clear_words(end, count - (int32_t)(end - words));
    if (p->plain) {
        return;
    }
    for (; count > 0; count -= 3, words += 3) {
        words[0] ^= words[1];
        words[2] ^= words[1];
    }
}

void kbnn_gather_pair(const kbnn_bconv_shape *p, const uint32_t *ring, int32_t y, int32_t x, int32_t group, uint32_t *patch) {
    const int32_t rows = 2 * p->dilation_y + 1;
    const int32_t step = p->dilation_x;
    const int32_t stride = p->stride_x;
    int32_t row = (y * p->stride_y) % rows;
    (void)group;
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

void kbnn_gather_rows(const kbnn_bconv_shape *p, const uint32_t *ring, int32_t y, int32_t x, int32_t group, uint32_t *patch) {
    const int32_t rows = p->kernel_height;
    const int32_t words = p->words;
    uint32_t *const begin = patch;
    int32_t row = (y * p->stride_y) % rows;
    (void)group;
    for (int32_t i = rows; i > 0; --i) {
        const uint32_t *from = ring + (row * (int32_t)p->ring_width + x * p->stride_x) * words;
        for (int32_t k = p->kernel_width * words; k > 0; --k) {
            *patch++ = *from++;
            KEEP_LOOP();
        }
        if (++row == rows) {
            row = 0;
        }
    }
    finish_patch(p, begin, patch);
}

/* Pixels of at most 16 channels share a word in pairs. */
void kbnn_gather_any(const kbnn_bconv_shape *p, const uint32_t *ring, int32_t y, int32_t x, int32_t group, uint32_t *patch) {
    const int32_t rows = (p->kernel_height - 1) * p->dilation_y + 1;
    const int32_t words = p->words;
    const int32_t own = words / p->groups;
    const int32_t next = (int32_t)p->dilation_x * words;
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
    finish_patch(p, begin, patch);
}

static void convolve_bits(const kbnn_step *step, int32_t y, const kbnn_memory *memory, int kind) {
    const kbnn_bconv_params *params = (const kbnn_bconv_params *)step->params;
    const kbnn_bconv_shape *p = params->shape;
    const int32_t rows = (p->kernel_height - 1) * p->dilation_y + 1;
    const int32_t filters = p->filters / p->groups;
    const int32_t patch_words = p->patch_words;
    uint32_t *ring = scratch_of(step, memory);
    uint32_t *patch = ring + rows * (int32_t)p->ring_width * p->words;
    uint32_t *sums = patch + patch_words;
    unsigned char *pixel = row_of(step->out, y, memory);
    fill_ring(step, y, memory, kind);
    for (int32_t x = 0; x < (int32_t)p->out_width; x += p->pixels) {
        const uint32_t *weights = (const uint32_t *)params->weights;
        uint32_t *sum = sums;
        for (int32_t group = 0; group < (int32_t)p->groups; ++group) {
            p->gather(p, ring, y, x, group, patch);
            p->count(patch, weights, filters, patch_words, sum);
            weights += filters * patch_words;
            sum += filters;
        }
        p->write(params->output, sums, p->filters, pixel);
        pixel += p->pixel_bytes;
        if (p->pixels == 2 && x + 1 < (int32_t)p->out_width) {
            p->write(params->output, sum, filters, pixel);
            pixel += p->pixel_bytes;
        }
    }
}

void kbnn_bconv_of_int8(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    convolve_bits(step, y, memory, OF_INT8);
}

void kbnn_bconv_of_bits(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    convolve_bits(step, y, memory, OF_BITS);
}

void kbnn_bconv_masked(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    convolve_bits(step, y, memory, MASKED);
}

/* ---- TensorFlow Lite's fixed-point multiplication ---------------------------------------------------------------- */

/* The high word of 2 * a * b, rounded to nearest. */
KBNN_INLINE int32_t doubling_high_word(int32_t a, int32_t b) {
    const int64_t product = (int64_t)a * b;
    return (int32_t)((product + (INT64_C(1) << 30)) >> 31);
}

/* value * multiplier * 2^(shift - 31), rounded twice; halves go up the second time, or away from zero. */
KBNN_INLINE int32_t rescaled_here(int32_t value, int32_t multiplier, int32_t shift, int away) {
    const int32_t left = shift > 0 ? shift : 0;
    int32_t high = doubling_high_word((int32_t)((uint32_t)value << left), multiplier);
    if (shift < 0) {
        high = (high - (away && high < 0)) >> (-shift - 1);
        high = (high >> 1) + (high & 1);
    }
    return high;
}

static int32_t rescaled_to(int32_t value, int32_t multiplier, int32_t shift, int away) {
    return rescaled_here(value, multiplier, shift, away);
}

static int32_t rescaled(int32_t value, int32_t multiplier, int32_t shift) {
    return rescaled_to(value, multiplier, shift, 1);
}

/* Rescales as TensorFlow Lite's matrix multiplications do: halves go up both times. */
static int32_t rescaled_up(int32_t value, int32_t multiplier, int32_t shift) {
    return rescaled_to(value, multiplier, shift, 0);
}

/* ---- Convolution in int8 ---------------------------------------------------------------------------------------- */

/* Expands a row to pairs of int16 and subtracts the zero point. A patch may begin at an odd value: for such patches a
 * second phase holds the row from its second value on. If the channels are a multiple of 4, the four values of a word are
 * in the order 0, 2, 1, 3, because that is how sxtb16 expands them. */
KBNN_INLINE void expand_row_by(const kbnn_conv_params *p, const int8_t *values, uint32_t *words, int in_words, int doubled) {
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
        for (; value < last; value += 2) {
            *words++ = pair_of((value[0] - zero) * scale, (value[1] - zero) * scale);
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

KBNN_HOT static void expand_row(const kbnn_conv_params *p, const int8_t *values, uint32_t *words, int in_words) {
    expand_row_by(p, values, words, in_words, 0);
}

KBNN_HOT static void expand_row_doubled(const kbnn_conv_params *p, const int8_t *values, uint32_t *words, int in_words) {
    expand_row_by(p, values, words, in_words, 1);
}

KBNN_INLINE void expand_rows(const kbnn_step *step, int32_t y, const kbnn_memory *memory, int doubled) {
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
            const int in_words = KBNN_LITTLE_ENDIAN && memory->rows[step->in0].memory == KBNN_ARENA;
            const int8_t *values = (const int8_t *)row_of(step->in0, row, memory);
            if (doubled) {
                expand_row_doubled(p, values, words, in_words);
            } else {
                expand_row(p, values, words, in_words);
            }
        }
    }
}

/* Stores relative to one pointer: there are not enough registers for a pointer per pixel. */
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

#if KBNN_MVE
KBNN_INLINE void copy_words(uint32_t *out, const uint32_t *from, int32_t count) {
    for (; count > 0; count -= 4, out += 4, from += 4) {
        const mve_pred16_t left = vctp32q((uint32_t)count);
        vstrwq_p_u32(out, vldrwq_z_u32(from, left), left);
    }
}
#endif

/* Gathers the patches of four pixels, interleaved word by word; with MVE, one patch after the other. The rest of a patch up
 * to patch_words is multiplied by zero and may hold anything. */
KBNN_HOT static void gather_four(const kbnn_conv_params *p, const uint32_t *ring, int32_t y, int32_t x, int32_t pixels, uint32_t *out) {
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
#if KBNN_MVE
        copy_words(out, a, row_words);
        copy_words(out + p->patch_words, b, row_words);
        copy_words(out + 2 * (int32_t)p->patch_words, c, row_words);
        copy_words(out + 3 * (int32_t)p->patch_words, d, row_words);
        out += row_words;
        a += row_words;
        b += row_words;
        c += row_words;
        d += row_words;
#else
        int32_t k = row_words;
        do {
            FOUR_WORDS(out, a, b, c, d);
        } while (--k != 0);
#endif
        a += jump;
        b += jump;
        c += jump;
        d += jump;
    }
}

/* Multiplies eight words of four patches by eight words of a filter, which is stored in int16 or int8. */
typedef struct {
    int32_t a, b, c, d;
} four_sums;

#if KBNN_MVE
/* Multiplies four patches by a filter that begins with its bias. The values of an int8 word are in the order 0, 2, 1, 3. */
KBNN_INLINE const uint32_t *four_products(four_sums *s, const uint32_t *w, const uint32_t *x, int32_t words, int in_int8) {
    const int16_t *a = (const int16_t *)(const void *)x;
    const int16_t *b = a + 2 * words;
    const int16_t *c = b + 2 * words;
    const int16_t *d = c + 2 * words;
    const uint16x8_t place = vidupq_n_u16(0, 1);
    const uint16x8_t order = (place & 0xFFFCu) | ((place & 1u) << 1) | ((place >> 1) & 1u);
    s->a = s->b = s->c = s->d = (int32_t)*w++;
    for (; words > 0; words -= 4, a += 8, b += 8, c += 8, d += 8, w += in_int8 ? 2 : 4) {
        const int16x8_t weights = in_int8 ? vldrbq_gather_offset_s16((const int8_t *)(const void *)w, order)
                                          : vldrhq_s16((const int16_t *)(const void *)w);
        s->a = vmladavaq_s16(s->a, vldrhq_s16(a), weights);
        s->b = vmladavaq_s16(s->b, vldrhq_s16(b), weights);
        s->c = vmladavaq_s16(s->c, vldrhq_s16(c), weights);
        s->d = vmladavaq_s16(s->d, vldrhq_s16(d), weights);
    }
    return w;
}
#elif KBNN_DSP
#define FOUR_PRODUCTS_ON(weight, a, b, c, d)                                             \
    "ldmia %[x]!, {r4, r5, r6, r8}\n\t"                                                  \
    "smlad %[a], " weight ", r4, " a "\n\tsmlad %[b], " weight ", r5, " b "\n\t"         \
    "smlad %[c], " weight ", r6, " c "\n\tsmlad %[d], " weight ", r8, " d "\n\t"
#define FOUR_PRODUCTS(weight) FOUR_PRODUCTS_ON(weight, "%[a]", "%[b]", "%[c]", "%[d]")
#define TWO_OF_INT16 "ldrd r9, r10, [%[w]], #8\n\t"
#define TWO_OF_INT8 "ldr r10, [%[w]], #4\n\tsxtb16 r9, r10\n\tsxtb16 r10, r10, ror #8\n\t"
#define NEXT(two) two FOUR_PRODUCTS("r9") FOUR_PRODUCTS("r10")
/* The first eight words: sums begin with the bias. */
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
/* Only the bias: without DSP instructions one loop multiplies all words, which is smaller. */
#define FIRST_EIGHT(two) s.a = s.b = s.c = s.d = (int32_t)*w++
#endif

/* Rescales four sums by the multiplier, shift and offset that follow the weights. */
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
    int32_t more; /* how many times eight words follow the first eight */
    int32_t to1;  /* offsets of the other pixels' results from the first's; missing pixels repeat the last one */
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

/* Applies filters that expand_filters wrote to four patches. */
KBNN_INLINE void filter_words(const block *b, const uint32_t *w, const uint32_t *patches, int8_t *out, int eight) {
    const int8_t *const end = out + b->filters;
    do {
        const uint32_t *x = patches;
        four_sums s;
#if KBNN_MVE
        w = four_products(&s, w, x, 8 * (b->more + 1), 0);
        (void)eight;
#else
        FIRST_EIGHT(TWO_OF_INT16);
        if (!eight) {
            int32_t k = b->more + !KBNN_DSP;
            do {
                NEXT_EIGHT(TWO_OF_INT16);
            } while (--k != 0);
        }
#endif
        RESULTS();
        STORE_BYTE(out, b->to3, s.d);
        STORE_BYTE(out, b->to2, s.c);
        STORE_BYTE(out, b->to1, s.b);
        *out++ = (int8_t)s.a;
    } while (out != end);
}

KBNN_HOT static void filter_expanded(const kbnn_conv_params *p, const uint32_t *w, const uint32_t *patches, int32_t left, int8_t *out) {
    const block b = block_of(p, left);
    BARRIER();
    if (b.more == 0 && KBNN_DSP && !KBNN_MVE) {
        filter_words(&b, w, patches, out, 1);
    } else {
        filter_words(&b, w, patches, out, 0);
    }
}

/* Applies filters in their stored form to four patches. `any` rescales exactly as TensorFlow Lite does. */
KBNN_INLINE void filter_stored(const kbnn_conv_params *p, const uint32_t *patches, int32_t left, int8_t *out, int any) {
    const block b = block_of(p, left);
    const int32_t twice_zero = 2 * p->out_zero + 1;
    const uint32_t *w = p->weights;
    BARRIER();
    for (const int8_t *const end = out + b.filters; out != end; ++out) {
        const uint32_t *x = patches;
        int32_t multiplier, shift;
        four_sums s;
#if KBNN_MVE
        w = four_products(&s, w, x, 8 * (b.more + 1), 1);
#else
        FIRST_EIGHT(TWO_OF_INT8);
        for (int32_t k = b.more + !KBNN_DSP; k != 0; --k) {
            NEXT_EIGHT(TWO_OF_INT8);
        }
#endif
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

/* Writes the filters in int16, with doubled weights, and with the offset that follows from zero point and shift. */
static void expand_filters(const kbnn_conv_params *p, uint32_t *out) {
    const uint32_t *w = p->weights;
    for (int32_t f = p->count; f > 0; --f) {
        const uint32_t bias_and_shift = *w++;
        *out++ = (uint32_t)((int32_t)bias_and_shift >> 5);
        for (int32_t k = p->patch_words; k > 0; k -= 2) {
            const uint32_t four = *w++;
            *out++ = doubled_pair(even_bytes(four));
            *out++ = doubled_pair(odd_bytes(four));
        }
        out[0] = *w++;
        out[1] = bias_and_shift & 31u;
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

KBNN_HOT void kbnn_conv_large(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    convolve(step, y, memory, STORED);
}

void kbnn_conv_any(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    convolve(step, y, memory, ANY);
}

/* The first of a filter's places that are inside an image, and the place after the last. */
typedef struct {
    int32_t first, end;
} taps;

static taps taps_inside(int32_t start, int32_t count, int32_t dilation, int32_t size) {
    taps found;
    found.first = start < 0 ? (dilation - 1 - start) / dilation : 0;
    found.end = count;
    while (found.end > 0 && start + (found.end - 1) * dilation >= size) {
        --found.end;
    }
    return found;
}

/* Adds the products of a row of every filter with values that are `next` apart. */
KBNN_HOT static void add_filter_rows(
    const kbnn_grouped_params *p, const int8_t *value, const int8_t *weight, int32_t count, int32_t next, int32_t *sum) {
    const int8_t *const end = value + p->channels;
    const int32_t width = p->kernel_width;
    const int32_t times = p->times;
    const int32_t zero = p->zero;
    if (count == 3 && times == 1) {
        for (; value != end; ++value, weight += width) {
            int32_t total = (value[0] - zero) * weight[0] + (value[next] - zero) * weight[1];
            total += (value[2 * next] - zero) * weight[2];
            *sum++ += total;
        }
        return;
    }
    for (; value != end; ++value) {
        for (int32_t k = times; k > 0; --k, weight += width) {
            const int8_t *at = value;
            int32_t total = 0;
            for (int32_t j = 0; j < count; ++j, at += next) {
                total += (*at - zero) * weight[j];
            }
            *sum++ += total;
        }
    }
}

/* The same for groups of any number of channels. */
static void add_group_rows(
    const kbnn_grouped_params *p, const int8_t *value, const int8_t *weight, int32_t count, int32_t next, int32_t *sum) {
    const int8_t *const end = value + p->channels;
    const int32_t own = p->own;
    const int32_t width = p->kernel_width * own;
    const int32_t zero = p->zero;
    for (; value != end; value += own) {
        for (int32_t k = p->times; k > 0; --k, weight += width) {
            const int8_t *at = value;
            const int8_t *by = weight;
            int32_t total = 0;
            for (int32_t j = 0; j < count; ++j, at += next, by += own) {
                for (int32_t c = 0; c < own; ++c) {
                    total += (at[c] - zero) * by[c];
                }
            }
            *sum++ += total;
        }
    }
}

KBNN_HOT static void rescale_filters(const kbnn_grouped_params *p, const int32_t *sum, int8_t *out) {
    const kbnn_filter *by = p->filters;
    const int32_t zero = p->out_zero;
    const int32_t low = p->low;
    const int32_t high = p->high;
    int32_t up = p->up;
    for (int32_t f = (int32_t)p->groups * p->times; f > 0; --f, --up, ++by) {
        const int32_t value = rescaled_here(*sum++, by->multiplier, by->shift, up <= 0) + zero;
        *out++ = (int8_t)(value > high ? high : value < low ? low : value);
    }
}

KBNN_INLINE void convolve_groups(const kbnn_step *step, int32_t y, const kbnn_memory *memory, int is_depthwise) {
    const kbnn_grouped_params *p = (const kbnn_grouped_params *)step->params;
    const int32_t own = is_depthwise ? 1 : p->own;
    const int32_t filters = (int32_t)p->groups * p->times;
    const int32_t top = y * p->stride_y - p->pad_top;
    const taps rows = taps_inside(top, p->kernel_height, p->dilation_y, p->height);
    int32_t *sums = (int32_t *)(void *)scratch_of(step, memory);
    int8_t *out = (int8_t *)row_of(step->out, y, memory);
    for (int32_t x = 0; x < (int32_t)p->out_width; ++x, out += filters) {
        const int32_t left = x * p->stride_x - p->pad_left;
        const taps columns = taps_inside(left, p->kernel_width, p->dilation_x, p->width);
        const int32_t first = (left + columns.first * p->dilation_x) * p->channels;
        for (int32_t f = 0; f < filters; ++f) {
            sums[f] = p->filters[f].bias;
        }
        for (int32_t i = rows.first; i < rows.end; ++i) {
            const int8_t *values = (const int8_t *)row_of(step->in0, top + i * p->dilation_y, memory) + first;
            const int8_t *weights = p->weights + (i * filters * p->kernel_width + columns.first) * own;
            const int32_t count = columns.end - columns.first;
            const int32_t next = (int32_t)p->dilation_x * p->channels;
            if (is_depthwise) {
                add_filter_rows(p, values, weights, count, next, sums);
            } else {
                add_group_rows(p, values, weights, count, next, sums);
            }
        }
        rescale_filters(p, sums, out);
    }
}

void kbnn_depthwise(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    convolve_groups(step, y, memory, 1);
}

void kbnn_conv_grouped(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    convolve_groups(step, y, memory, 0);
}

void kbnn_dense(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_dense_params *p = (const kbnn_dense_params *)step->params;
    const int8_t *values = (const int8_t *)row_of(step->in0, y, memory);
    int8_t *out = (int8_t *)row_of(step->out, y, memory);
    const int8_t *weights = p->weights;
    const kbnn_filter *by = p->filters;
    for (int32_t f = p->outputs; f > 0; --f, ++by) {
        int32_t sum = by->bias;
        for (int32_t k = 0; k < (int32_t)p->inputs; ++k) {
            sum += *weights++ * values[k];
        }
        sum = rescaled_up(sum, by->multiplier, by->shift) + p->out_zero;
        *out++ = (int8_t)clamped(sum, p->low, p->high);
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

/* A term of a sum, scaled by 2^20 and rescaled, with one rounding in TensorFlow Lite's vectors and two outside of them. */
static int32_t term(int32_t value, const kbnn_add_exact_params *p, int32_t number, int in_vector) {
    const int32_t left = 20 + p->shift[number];
    if (!in_vector) {
        return rescaled(value * (1 << 20), p->multiplier[number], p->shift[number]);
    }
    return doubling_high_word(left < 0 ? value >> -left : value * (1 << left), p->multiplier[number]);
}

void kbnn_add_exact(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_add_exact_params *p = (const kbnn_add_exact_params *)step->params;
    const int8_t *a = (const int8_t *)row_of(step->in0, y, memory);
    const int8_t *b = (const int8_t *)row_of(step->in1, y, memory);
    int8_t *out = (int8_t *)row_of(step->out, y, memory);
    const int32_t in_vectors = p->in_vectors - y * p->values;
    for (int32_t k = 0; k < (int32_t)p->values; ++k) {
        const int32_t sum = term(*a++ - p->zero[0], p, 0, k < in_vectors) + term(*b++ - p->zero[1], p, 1, k < in_vectors);
        *out++ = (int8_t)clamped(rescaled(sum, p->multiplier[2], p->shift[2]) + p->zero[2], p->low, p->high);
    }
}

void kbnn_multiply(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_multiply_params *p = (const kbnn_multiply_params *)step->params;
    const int8_t *a = (const int8_t *)row_of(step->in0, y, memory);
    const int8_t *pixel = (const int8_t *)row_of(step->in1, y * p->b_row, memory);
    int8_t *out = (int8_t *)row_of(step->out, y, memory);
    for (int32_t x = p->width; x > 0; --x, pixel += p->b_column) {
        const int8_t *b = pixel;
        for (int32_t c = p->channels; c > 0; --c, b += p->b_channel) {
            const int32_t product = (*a++ - p->a_zero) * (*b - p->b_zero);
            *out++ = (int8_t)clamped(rescaled(product, p->multiplier, p->shift) + p->out_zero, p->low, p->high);
        }
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

static int32_t rectified(const kbnn_prelu_params *p, int32_t value, int32_t slope) {
    const int32_t twice_zero = 2 * p->out_zero + 1;
    value -= p->zero;
    if (value >= 0) {
        const int32_t shift = p->exponent[0] < 0 ? -p->exponent[0] : 0;
        const int32_t offset = (twice_zero * (1 << shift)) >> 1;
        value = add_high_word(value * (2 << (p->exponent[0] + shift)), p->multiplier[0], offset) >> shift;
    } else {
        const int32_t shift = -p->exponent[1];
        value = add_high_word(2 * value * slope, p->multiplier[1], 0);
        value = (value + (value >> 31) + ((twice_zero * (1 << shift)) >> 1)) >> shift;
    }
    return saturated(value);
}

void kbnn_prelu(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_prelu_params *p = (const kbnn_prelu_params *)step->params;
    const int8_t *values = (const int8_t *)row_of(step->in0, y, memory);
    int8_t *out = (int8_t *)row_of(step->out, y, memory);
    for (int32_t x = p->width; x > 0; --x) {
        const int8_t *slope = p->slopes;
        for (int32_t c = p->channels; c > 0; --c) {
            *out++ = (int8_t)rectified(p, *values++, *slope++);
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

void kbnn_with_rest(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_rest_params *p = (const kbnn_rest_params *)step->params;
    const int8_t *values = (const int8_t *)row_of(step->in0, y, memory);
    int8_t *out = (int8_t *)row_of(step->out, y, memory);
    const int32_t count = p->values;
    const int32_t before = y * count;
    const int32_t first = before < p->in_vectors ? p->in_vectors - before : 0;
    const int8_t *table = p->rest + 256 * (before + first - p->in_vectors);
    kbnn_step whole = *step;
    int8_t rest[KBNN_MOST_REST];
    /* The kernel may replace the values in place. */
    for (int32_t k = first; k < count; ++k, table += 256) {
        rest[k - first] = table[values[k] + 128];
    }
    whole.params = p->params;
    p->kernel(&whole, y, memory);
    for (int32_t k = first; k < count; ++k) {
        out[k] = rest[k - first];
    }
}

KBNN_INLINE void choose(const kbnn_step *step, int32_t y, const kbnn_memory *memory, int is_larger) {
    const kbnn_extreme_params *p = (const kbnn_extreme_params *)step->params;
    const int8_t *a = (const int8_t *)row_of(step->in0, y, memory);
    const int8_t *b = (const int8_t *)row_of(step->in1, y, memory);
    int8_t *out = (int8_t *)row_of(step->out, y, memory);
    for (int32_t k = p->values; k > 0; --k, ++a, ++b) {
        *out++ = (*a > *b) == is_larger ? *a : *b;
    }
}

void kbnn_maximum(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    choose(step, y, memory, 1);
}

void kbnn_minimum(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    choose(step, y, memory, 0);
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

static unsigned char *fill(unsigned char *out, uint32_t count, int8_t value) {
    for (; count > 0; --count) {
        *out++ = (unsigned char)value;
        KEEP_LOOP();
    }
    return out;
}

void kbnn_pad(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_pad_params *p = (const kbnn_pad_params *)step->params;
    const int32_t row = y - p->top;
    unsigned char *out = row_of(step->out, y, memory);
    if (row < 0 || row >= (int32_t)p->height) {
        fill(out, p->before + p->inside + p->after, p->value);
    } else {
        const unsigned char *values = row_of(step->in0, row, memory);
        out = fill(out, p->before, p->value);
        for (uint32_t k = 0; k < p->inside; ++k) {
            *out++ = values[k];
            KEEP_LOOP();
        }
        fill(out, p->after, p->value);
    }
}

void kbnn_reshape(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_reshape_params *p = (const kbnn_reshape_params *)step->params;
    const unsigned char *values = row_of(step->in0, 0, memory) + y * p->bytes;
    unsigned char *out = row_of(step->out, y, memory);
    for (int32_t k = p->bytes; k > 0; --k) {
        *out++ = *values++;
        KEEP_LOOP();
    }
}

void kbnn_rearrange(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_rearrange_params *p = (const kbnn_rearrange_params *)step->params;
    const int8_t *row = (const int8_t *)row_of(step->in0, 0, memory) + p->rows[y];
    int8_t *out = (int8_t *)row_of(step->out, y, memory);
    for (int32_t x = 0; x < (int32_t)p->width; ++x) {
        const int8_t *pixel = row + p->columns[x];
        for (int32_t c = 0; c < (int32_t)p->channels; ++c) {
            *out++ = pixel[p->places[c]];
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

void kbnn_average_pool_of_prelu(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_prelu_pool_params *p = (const kbnn_prelu_pool_params *)step->params;
    const kbnn_prelu_params *prelu = p->prelu;
    const int32_t channels = prelu->channels;
    const int32_t count = p->size_y * p->size_x;
    int8_t *out = (int8_t *)row_of(step->out, y, memory);
    for (int32_t x = 0; x < (int32_t)p->out_width; ++x) {
        for (int32_t c = 0; c < channels; ++c) {
            int32_t sum = 0;
            for (int32_t i = 0; i < (int32_t)p->size_y; ++i) {
                const int8_t *row = (const int8_t *)row_of(step->in0, y * p->size_y + i, memory);
                const int8_t *value = row + x * p->size_x * channels + c;
                for (int32_t j = p->size_x; j > 0; --j, value += channels) {
                    sum += rectified(prelu, *value, prelu->slopes[c]);
                }
            }
            *out++ = (int8_t)((sum > 0 ? sum + count / 2 : sum - count / 2) / count);
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

/* The maximum of signs is +1 unless all are -1. */
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
        out[c] = (int8_t)saturated(rescaled_to(sum, p->multiplier, p->shift, c >= (int32_t)p->up) + p->out_zero);
    }
}

/* ---- Layer normalization and softmax, in single precision -------------------------------------------------------- */

/* No fused multiply-add: it rounds once where the interpreter rounds twice. */
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
    /* A sticky last bit makes the conversion to float round correctly. */
    root = (root << 1) | (root * root != mantissa ? 1u : 0u);
    return (float)(uint32_t)root * float_of_bits((uint32_t)(127 + (exponent - 26) / 2 - 1) << 23);
}

/* Rounds to nearest, halves away from zero. Values far outside int8 are clipped to values outside int8. */
static int32_t nearest(float value) {
    const float bounded = value > 512.0f ? 512.0f : value < -512.0f ? -512.0f : value;
    const int32_t whole = (int32_t)bounded;
    const float rest = bounded - (float)whole;
    return whole + (rest >= 0.5f) - (rest <= -0.5f);
}

/* Rounds to nearest, halves to even. */
static int32_t nearest_even(float value) {
    const int32_t away = nearest(value);
    const float rest = value - (float)away;
    return (rest == 0.5f || rest == -0.5f) && away % 2 != 0 ? away + (rest > 0.0f) - (rest < 0.0f) : away;
}

UNCONTRACTED static float scaled_sum(const kbnn_float_scaled *scaled, uint32_t sum, int32_t filter) {
    const float product = (float)clamped(2 * (int32_t)sum, scaled->low, scaled->high) * scaled->multiplier[filter];
    return product + scaled->offset[filter];
}

UNCONTRACTED void kbnn_write_float(const void *params, uint32_t *sums, int32_t filters, void *pixel) {
    float *out = (float *)pixel;
    for (int32_t f = 0; f < filters; ++f) {
        out[f] = scaled_sum((const kbnn_float_scaled *)params, sums[f], f);
    }
}

UNCONTRACTED void kbnn_write_rounded(const void *params, uint32_t *sums, int32_t filters, void *pixel) {
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
            const float result = (p->offset == 0 ? scaled - shift : scaled + shift) * p->out_inverse;
            *out++ = (int8_t)saturated(nearest_even(result) + p->out_zero);
        }
    }
}

UNCONTRACTED void kbnn_softmax(const kbnn_step *step, int32_t y, const kbnn_memory *memory) {
    const kbnn_softmax_params *p = (const kbnn_softmax_params *)step->params;
    const int8_t *values = (const int8_t *)row_of(step->in0, y, memory);
    int8_t *out = (int8_t *)row_of(step->out, y, memory);
    const int32_t channels = p->channels;
    for (int32_t x = p->width; x > 0; --x, values += channels) {
        int32_t largest = values[0];
        float sum = 0.0f;
        float inverse;
        for (int32_t c = 1; c < channels; ++c) {
            largest = values[c] > largest ? values[c] : largest;
        }
        for (int32_t c = 0; c < channels; ++c) {
            sum = sum + p->powers[largest - values[c]];
        }
        inverse = sum * p->out_scale;
        inverse = 1.0f / inverse;
        for (int32_t c = 0; c < channels; ++c) {
            const float share = p->powers[largest - values[c]] * inverse;
            out[c] = (int8_t)saturated(nearest(share) + p->out_zero);
        }
        out += channels;
    }
}
