/* Kernels for 1-bit neural networks in plain C99: the same file for every network that kbnn exports.
 *
 * No allocation, no standard library beyond <stdint.h>, no writable globals: all memory is the caller's arena. Only layer
 * normalization and softmax use floating point, and LCE's own scaling, which only the operators for TensorFlow Lite Micro
 * use. Tensors are stored row by row, channels last. A sign is one bit, 0 for +1 and 1 for -1. A pixel of signs takes whole 32-bit
 * words, with channel k of a word in bit k.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef KBNN_NN_H
#define KBNN_NN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A network works only with the kernels that it was exported with: versions of kbnn may differ in their structs. The
 * functions through which code enters the kernels therefore have the kernels' fingerprint in their names, which the export
 * fills in. If the linker misses one of these names, or finds kernels twice, export all networks of the program with one
 * version of kbnn. */
#define kbnn_run kbnn_run_of_kernels_unexported
#define kbnn_bconv_of_bits kbnn_bconv_of_bits_of_kernels_unexported
#define kbnn_max_pool_bits kbnn_max_pool_bits_of_kernels_unexported

/* What kbnn_run and the functions of a network return. */
#define KBNN_OK 0
#define KBNN_NULL_ARGUMENT (-1)
#define KBNN_MISALIGNED_ARENA (-2)

/* Where a tensor can be. The arena must be aligned to 4 bytes; image and scores need not be. */
enum { KBNN_ARENA, KBNN_IMAGE, KBNN_SCORES, KBNN_MEMORIES };

/* The rows of a tensor: row y is at offset + (y % rows) * pitch bytes. */
typedef struct {
    uint32_t offset;
    uint32_t pitch;
    uint16_t rows;
    uint16_t memory;
} kbnn_rows;

typedef struct {
    const kbnn_rows *rows;
    unsigned char *base[KBNN_MEMORIES];
} kbnn_memory;

struct kbnn_step;

/* Computes row y of a step's output. */
typedef void kbnn_kernel(const struct kbnn_step *step, int32_t y, const kbnn_memory *memory);

/* One operation, with the indices of the `rows` that it reads and writes. `scratch` is working memory that keeps its content
 * from row to row of a pass. */
typedef struct kbnn_step {
    kbnn_kernel *kernel;
    const void *params;
    uint8_t in0;
    uint8_t in1;
    uint8_t out;
    uint8_t scratch;
} kbnn_step;

/* Steps that are executed row by row, so that only one row of a tensor between them is stored. */
typedef struct {
    uint16_t count;
    uint16_t rows;
} kbnn_pass;

typedef struct {
    const kbnn_pass *passes;
    const kbnn_step *steps; /* of all passes */
    const kbnn_rows *rows;
    int32_t count; /* passes */
} kbnn_network;

int kbnn_run(const kbnn_network *network, const int8_t *image, int8_t *scores, void *arena);

/* ---- Binary convolution ---------------------------------------------------------------------------------------- */

/* A value v becomes (v * multiplier + offset) >> shift. */
typedef struct {
    int32_t multiplier;
    int32_t offset;
} kbnn_channel;

/* Counts the bits in which a patch differs from each filter. Patch and filters come in triples of words (a, b, c),
 * stored as (a ^ b, b, b ^ c): that saves one operation of the first full adder. */
typedef void kbnn_count(const uint32_t *patch, const uint32_t *weights, int32_t filters, int32_t words, uint32_t *sums);

kbnn_count kbnn_count_3;
kbnn_count kbnn_count_6;
kbnn_count kbnn_count_9;
kbnn_count kbnn_count_18;
kbnn_count kbnn_count_pairs; /* 9 words of two pixels, 9 uint16_t per filter: sums of the first pixel, then of the second */
kbnn_count kbnn_count_plain; /* not in triples; any number of words */
kbnn_count kbnn_count_any; /* any multiple of 3 words */

/* Writes one pixel of output from its sums. */
typedef void kbnn_write(const void *params, uint32_t *sums, int32_t filters, void *pixel);

typedef struct {
    const kbnn_channel *channels;
    uint8_t shift;
} kbnn_scaled;

/* Scaling with constants of 16 bits: (((sum - centre) * multiplier >> shift) + offset) >> fraction. The channels are followed
 * by exceptions, the sums for which the result is one more or one less: filter << 17 | sum << 1 | (1 if more). */
typedef struct {
    const uint32_t *channels; /* the multiplier in the lower half, the offset in the upper one */
    int16_t centre;
    uint8_t shift;
    uint8_t fraction;
    uint8_t exceptions;
} kbnn_short;

/* The result for a sum where the line gives another one. */
typedef struct {
    uint16_t filter;
    uint16_t sum;
    int8_t value;
} kbnn_exception;

typedef struct {
    const kbnn_channel *channels;
    const kbnn_exception *exceptions; /* sorted by filter; the last entry has a filter number that does not exist */
    uint8_t shift;
    uint8_t left; /* applied to the sum first */
    int8_t low;
    int8_t high;
} kbnn_wide;

kbnn_write kbnn_write_short; /* kbnn_short, int8 */
kbnn_write kbnn_write_int8; /* kbnn_scaled, int8: (sum * multiplier + offset) >> shift, in 32 bits */
kbnn_write kbnn_write_wide; /* kbnn_wide, int8: (high word of (sum << left) * multiplier, + offset) >> shift */
kbnn_write kbnn_write_bits; /* bits: sum >= limit; params are the limits, a uint16_t per filter */

/* LCE's own form in float: the sum is doubled, clipped, multiplied, and an offset is added. */
typedef struct {
    const float *multiplier;
    const float *offset;
    int32_t low;
    int32_t high;
} kbnn_float_scaled;

kbnn_write kbnn_write_float;   /* kbnn_float_scaled, float */
kbnn_write kbnn_write_rounded; /* kbnn_float_scaled, int8: to nearest, halves away from zero */

/* An activation fused into the convolution: sums are limited first, then written in one of the forms above. */
typedef struct {
    kbnn_write *write;
    const void *output; /* what `write` takes */
    uint16_t low;
    uint16_t high;
} kbnn_limited;

kbnn_write kbnn_write_limited;

/* The signs of one pixel's values, as words. */
void kbnn_signs_of_int8(const int8_t *values, int32_t count, int32_t zero, uint32_t *words);
void kbnn_signs_of_float(const float *values, int32_t count, uint32_t *words);

struct kbnn_bconv_shape;

/* Gathers the patch of output pixel x for one group of channels. */
typedef void kbnn_gather(
    const struct kbnn_bconv_shape *shape, const uint32_t *ring, int32_t y, int32_t x, int32_t group, uint32_t *patch);

kbnn_gather kbnn_gather_pair; /* 3x3 patches of pixels x and x + 1, of at most 16 channels, in the halves of 9 words */
kbnn_gather kbnn_gather_rows; /* more than 16 channels, without groups and dilation */
kbnn_gather kbnn_gather_any;

/* The shape of a layer, which several layers can share. */
typedef struct kbnn_bconv_shape {
    kbnn_gather *gather;
    kbnn_count *count;
    kbnn_write *write;
    uint16_t height; /* of the input */
    uint16_t width;
    uint16_t channels;
    uint16_t words; /* of a pixel of the input */
    uint16_t groups;
    uint16_t patch_words; /* of a group, a multiple of 3 */
    uint16_t filters;     /* in all groups */
    uint16_t out_width;
    uint16_t pixel_bytes; /* of the output */
    uint16_t ring_width;  /* pixels of a row with its padding */
    uint8_t kernel_height;
    uint8_t kernel_width;
    uint8_t stride_y;
    uint8_t stride_x;
    uint8_t dilation_y;
    uint8_t dilation_x;
    uint8_t pad_top;
    uint8_t pad_left;
    uint8_t pixels; /* 2 with kbnn_gather_pair and kbnn_count_pairs, else 1 */
    uint8_t plain;  /* with kbnn_count_plain */
} kbnn_bconv_shape;

typedef struct {
    const kbnn_bconv_shape *shape;
    const void *weights; /* uint32_t, filters x patch_words, in triples; for kbnn_count_pairs uint16_t */
    const void *output;  /* what `write` takes */
    int16_t zero;        /* values below are -1 */
} kbnn_bconv_params;

/* Signs of channels whose bit is 0 in `mask`, a word for each of a pixel's, are +1. */
typedef struct {
    kbnn_bconv_params bconv;
    const uint32_t *mask;
} kbnn_masked_params;

kbnn_kernel kbnn_bconv_of_int8; /* in0 is int8: takes its signs */
kbnn_kernel kbnn_bconv_masked;  /* the same with kbnn_masked_params */
kbnn_kernel kbnn_bconv_of_bits; /* in0 is bits */

/* ---- Real-valued operations in int8 ---------------------------------------------------------------------------- */

/* A filter's sum, including its bias, is multiplied by multiplier * 2^(shift - 31). kbnn_conv and kbnn_conv_large double
 * the sums, through the bias and either weights or values, and shift to the right. Of each filter, `weights` holds the bias,
 * patch_words / 2 words of 4 int8, multiplier and shift; for kbnn_conv the first word is bias << 5 | shift. */
typedef struct {
    const uint32_t *weights;
    uint16_t height;
    uint16_t width;
    uint16_t channels;
    uint16_t count;       /* filters */
    uint16_t patch_words; /* of 2 values each, a multiple of 8 */
    uint16_t row_words;   /* of a patch's row: kernel_width * channels values */
    uint16_t ring_words;  /* of an expanded row with its padding */
    uint16_t out_width;
    int16_t zero; /* the input's zero point */
    int16_t out_zero;
    int8_t low; /* the output's range, kbnn_conv_any only */
    int8_t high;
    uint8_t kernel_height;
    uint8_t stride_y;
    uint8_t stride_x;
    uint8_t pad_top;
    uint8_t pad_left;
    uint8_t phases; /* 2 where a patch may begin at an odd value, else 1 */
} kbnn_conv_params;

kbnn_kernel kbnn_conv;       /* expands its weights to int16 in scratch, once */
kbnn_kernel kbnn_conv_large; /* expands them each time */
kbnn_kernel kbnn_conv_any;   /* any multiplier and range */

typedef struct {
    int32_t bias;
    int32_t multiplier;
    int32_t shift;
} kbnn_filter;

/* Groups of channels, each with its own filters. A filter's sum, including its bias, is rescaled; the first `up` filters round
 * halves up, the others away from zero. */
typedef struct {
    const int8_t *weights; /* kernel_height x filters x kernel_width x own; filter f reads group f / times */
    const kbnn_filter *filters;
    uint16_t height;
    uint16_t width;
    uint16_t channels;
    uint16_t groups;
    uint16_t own;   /* channels of a group; 1 with kbnn_depthwise */
    uint16_t times; /* filters of a group */
    uint16_t up;
    uint16_t out_width;
    int16_t zero;
    int16_t out_zero;
    int8_t low;
    int8_t high;
    uint8_t kernel_height;
    uint8_t kernel_width;
    uint8_t stride_y;
    uint8_t stride_x;
    uint8_t dilation_y;
    uint8_t dilation_x;
    uint8_t pad_top;
    uint8_t pad_left;
} kbnn_grouped_params;

kbnn_kernel kbnn_depthwise;
kbnn_kernel kbnn_conv_grouped; /* any groups and dilation */

typedef struct {
    const int8_t *weights;
    const kbnn_filter *filters;
    uint16_t inputs;
    uint16_t outputs;
    int16_t out_zero;
    int8_t low;
    int8_t high;
} kbnn_dense_params;

kbnn_kernel kbnn_dense;

/* (a * a_multiplier + b * b_multiplier + offset) >> shift. */
typedef struct {
    int32_t a_multiplier;
    int32_t b_multiplier;
    int32_t offset;
    uint16_t values; /* of a row */
    uint8_t shift;
} kbnn_add_params;

kbnn_kernel kbnn_add;

/* (a * a_multiplier + b * b_multiplier + offset) >> shift, with a sum of 64 bits. */
typedef struct {
    int32_t a_multiplier;
    int32_t b_multiplier;
    int64_t offset;
    uint16_t values;
    uint8_t shift;
} kbnn_add_wide_params;

kbnn_kernel kbnn_add_wide;

/* Exactly as TensorFlow Lite adds: the first `in_vectors` values of the tensor with one rounding of each term, the others
 * with two. */
typedef struct {
    int32_t multiplier[3];
    int32_t in_vectors;
    int8_t shift[3];
    int16_t zero[3];
    uint16_t values;
    int8_t low;
    int8_t high;
} kbnn_add_exact_params;

kbnn_kernel kbnn_add_exact;

/* (a - a_zero) * (b - b_zero) * multiplier * 2^(shift - 31) + out_zero. Where b has one row, column or channel, it belongs to
 * all of a's. */
typedef struct {
    int32_t multiplier;
    int16_t a_zero;
    int16_t b_zero;
    int16_t out_zero;
    uint16_t width;
    uint16_t channels;
    uint16_t b_column; /* from a pixel of b to the next; 0 if it has one column */
    uint8_t b_channel; /* from a value of b to the next; 0 if it has one channel */
    uint8_t b_row;     /* 0 if b has one row, else 1 */
    int8_t shift;
    int8_t low;
    int8_t high;
} kbnn_multiply_params;

kbnn_kernel kbnn_multiply;

/* (x * multiplier + offset) >> shift per channel: with `below` for x < split, else with `above`, which repeats after
 * `above_channels` channels. */
typedef struct {
    const kbnn_channel *below;
    const kbnn_channel *above;
    uint16_t width;
    uint16_t channels;
    uint16_t above_channels;
    int16_t split;
    uint8_t shift;
    int8_t low;
    int8_t high;
} kbnn_affine_params;

kbnn_kernel kbnn_affine;

/* PReLU as TensorFlow Lite computes it, for values below zero (1) and others (0): value * slope * multiplier * 2^(exponent
 * - 31) in two roundings, the second of halves away from zero. The exponent below zero is negative. */
typedef struct {
    const int8_t *slopes; /* per channel */
    int32_t multiplier[2];
    uint16_t width;
    uint16_t channels;
    int8_t exponent[2];
    int8_t zero;
    int8_t out_zero;
} kbnn_prelu_params;

kbnn_kernel kbnn_prelu;

/* Any function of one value as a table: tables x 256 results, where channel k uses table k % tables. */
typedef struct {
    const int8_t *table;
    uint16_t width;
    uint16_t channels;
    uint16_t tables;
} kbnn_table_params;

kbnn_kernel kbnn_table;

/* A function of one value whose last values are rounded differently: TensorFlow Lite computes values in vectors, and those
 * that fill no vector one by one. `kernel` computes all values as in vectors; `rest` has 256 results for each of the last. */
typedef struct {
    kbnn_kernel *kernel;
    const void *params;
    const int8_t *rest;
    int32_t in_vectors; /* values of the tensor before the last ones, of which there are at most KBNN_MOST_REST */
    uint16_t values;    /* of a row */
} kbnn_rest_params;

#define KBNN_MOST_REST 15

kbnn_kernel kbnn_with_rest;

/* The larger or the smaller of two values. */
typedef struct {
    uint16_t values; /* of a row */
} kbnn_extreme_params;

kbnn_kernel kbnn_maximum;
kbnn_kernel kbnn_minimum;

typedef struct {
    uint16_t height;
    uint16_t width;
    uint16_t channels; /* for bits: words */
    uint16_t out_width;
    uint8_t size_y;
    uint8_t size_x;
    uint8_t stride_y;
    uint8_t stride_x;
    uint8_t pad_top;
    uint8_t pad_left;
    int8_t low;
    int8_t high;
} kbnn_pool_params;

/* Averages of a PReLU's results over windows that neither overlap nor reach into padding. */
typedef struct {
    const kbnn_prelu_params *prelu;
    uint16_t out_width;
    uint8_t size_y;
    uint8_t size_x;
} kbnn_prelu_pool_params;

kbnn_kernel kbnn_average_pool;
kbnn_kernel kbnn_average_pool_of_prelu;
kbnn_kernel kbnn_max_pool;
kbnn_kernel kbnn_max_pool_bits;

typedef struct {
    int32_t multiplier;
    int32_t offset; /* added to the sum of a channel */
    int32_t out_zero;
    uint16_t height;
    uint16_t width;
    uint16_t channels;
    uint16_t up; /* so many channels round halves up, the others away from zero */
    int8_t shift;
} kbnn_mean_params;

kbnn_kernel kbnn_mean;

/* Layer normalization in float as TensorFlow Lite computes it: every operation is rounded to single precision, and sums
 * are taken in order. */
typedef struct {
    const float *scale;  /* per channel, or 0 */
    const float *offset; /* per channel, or 0 */
    float step;          /* the input is value * step - zero */
    float zero;
    float epsilon;
    float out_inverse;
    uint16_t height;
    uint16_t width;
    uint16_t channels;
    int16_t out_zero;
} kbnn_normalize_params;

kbnn_kernel kbnn_moments;   /* from all of in0 to two floats per channel: factor and shift */
kbnn_kernel kbnn_normalize; /* a row of in0 with the moments in1 */

/* Output channel k is channel source[k] of in0 followed by in1, or the constant if source[k] is negative. */
typedef struct {
    const int16_t *source;
    uint16_t width;
    uint16_t channels0;
    uint16_t channels1;
    uint16_t channels; /* of the output */
    int8_t constant;
} kbnn_channels_params;

kbnn_kernel kbnn_channels;

/* in0 with a border of one value. */
typedef struct {
    uint32_t before; /* bytes of an output row before in0's row, of in0's row, and after it */
    uint32_t inside;
    uint32_t after;
    uint16_t top;
    uint16_t height; /* of in0 */
    int8_t value;
} kbnn_pad_params;

kbnn_kernel kbnn_pad;

/* The bytes of in0 in rows of another length. */
typedef struct {
    int32_t bytes; /* of an output row */
} kbnn_reshape_params;

kbnn_kernel kbnn_reshape;

/* Values in other places, as in a transposed, cropped or enlarged image: channel c of pixel (y, x) is value
 * rows[y] + columns[x] + places[c] of in0. */
typedef struct {
    const int32_t *rows;
    const int32_t *columns;
    const int32_t *places;
    uint16_t width;
    uint16_t channels;
} kbnn_rearrange_params;

kbnn_kernel kbnn_rearrange;

/* Softmax over the channels of each pixel as TensorFlow Lite computes it, in single precision, summed in order. */
typedef struct {
    const float *powers; /* exp(-k * scale of in0) for k from 0 to 255 */
    float out_scale;
    uint16_t width;
    uint16_t channels;
    int16_t out_zero;
} kbnn_softmax_params;

kbnn_kernel kbnn_softmax;

#ifdef __cplusplus
}
#endif

#endif
