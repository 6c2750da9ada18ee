/* Larq Compute Engine's operators for TensorFlow Lite for Microcontrollers, over the kernels of kbnn_nn.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "kbnn_tflm.h"

#include <initializer_list>

/* The locale's functions would need a library. */
#ifndef FLATBUFFERS_LOCALE_INDEPENDENT
#define FLATBUFFERS_LOCALE_INDEPENDENT 0
#endif
#include "flatbuffers/flexbuffers.h"
#include "kbnn_nn.h"
#include "tensorflow/lite/kernels/kernel_util.h"
#if KBNN_TFLM_CONTEXT
#include "tensorflow/lite/micro/kernels/kernel_util.h"
#include "tensorflow/lite/micro/micro_context.h"
#endif

namespace kbnn {
namespace {

/* ---- What differs between the APIs of TensorFlow Lite for Microcontrollers ------------------------------------------ */

#if KBNN_TFLM_CONTEXT

/* A tensor while an operator is prepared; null where an optional input is left out. */
class Prepared {
  public:
    Prepared(TfLiteContext* context, TfLiteNode* node, int index, bool is_output)
        : micro_(tflite::GetMicroContext(context)),
          tensor_(is_output ? micro_->AllocateTempOutputTensor(node, index)
                  : node->inputs->data[index] < 0 ? nullptr
                                                  : micro_->AllocateTempInputTensor(node, index)) {}
    ~Prepared() {
        if (tensor_ != nullptr) {
            micro_->DeallocateTempTfLiteTensor(tensor_);
        }
    }
    Prepared(const Prepared&) = delete;
    Prepared& operator=(const Prepared&) = delete;
    const TfLiteTensor* get() const { return tensor_; }

  private:
    tflite::MicroContext* micro_;
    TfLiteTensor* tensor_;
};

const void* InputData(TfLiteContext* context, TfLiteNode* node, int index) {
    return tflite::micro::GetEvalInput(context, node, index)->data.raw;
}

void* OutputData(TfLiteContext* context, TfLiteNode* node, int index) {
    return tflite::micro::GetEvalOutput(context, node, index)->data.raw;
}

void* Allocate(TfLiteContext* context, size_t bytes) {
    return tflite::GetMicroContext(context)->AllocatePersistentBuffer(bytes);
}

/* Working memory of an operator: shared with others, by number. */
struct Working {
    int number;
};

TfLiteStatus RequestWorking(TfLiteContext* context, size_t bytes, Working* working) {
    return tflite::GetMicroContext(context)->RequestScratchBufferInArena(bytes, &working->number);
}

unsigned char* WorkingMemory(TfLiteContext* context, const Working& working) {
    return static_cast<unsigned char*>(tflite::GetMicroContext(context)->GetScratchBuffer(working.number));
}

#else

class Prepared {
  public:
    Prepared(TfLiteContext* context, TfLiteNode* node, int index, bool is_output)
        : tensor_(is_output ? tflite::GetOutput(context, node, index)
                            : tflite::GetOptionalInputTensor(context, node, index)) {}
    const TfLiteTensor* get() const { return tensor_; }

  private:
    const TfLiteTensor* tensor_;
};

const void* InputData(TfLiteContext* context, TfLiteNode* node, int index) {
    return tflite::GetInput(context, node, index)->data.raw;
}

void* OutputData(TfLiteContext* context, TfLiteNode* node, int index) {
    return tflite::GetOutput(context, node, index)->data.raw;
}

void* Allocate(TfLiteContext* context, size_t bytes) {
    void* memory = nullptr;
    return context->AllocatePersistentBuffer(context, bytes, &memory) == kTfLiteOk ? memory : nullptr;
}

/* Working memory of an operator: its own, because in this version no memory may be allocated between two requests for
 * shared memory, and other operators do that. */
struct Working {
    void* memory;
};

TfLiteStatus RequestWorking(TfLiteContext* context, size_t bytes, Working* working) {
    working->memory = Allocate(context, bytes);
    return working->memory == nullptr ? kTfLiteError : kTfLiteOk;
}

unsigned char* WorkingMemory(TfLiteContext*, const Working& working) {
    return static_cast<unsigned char*>(working.memory);
}

#endif

int Words(int channels) { return (channels + 31) / 32; }

/* Pixels of a tensor, whatever its dimensions before the channels are. */
int Pixels(const TfLiteTensor* tensor) {
    int count = 1;
    for (int k = 0; k + 1 < tensor->dims->size; ++k) {
        count *= tensor->dims->data[k];
    }
    return count;
}

int Channels(const TfLiteTensor* tensor) { return tensor->dims->data[tensor->dims->size - 1]; }

int Padding(int size, int kernel, int stride, int dilation, int out, bool same) {
    const int missing = (out - 1) * stride + (kernel - 1) * dilation + 1 - size;
    return same && missing > 0 ? missing / 2 : 0;
}

/* Whether sizes fit the fields of the kernels' parameters. */
bool Fit(std::initializer_list<int> sizes, int largest) {
    for (const int size : sizes) {
        if (size < 0 || size > largest) {
            return false;
        }
    }
    return true;
}

/* ---- LceQuantize and LceDequantize ------------------------------------------------------------------------------------ */

struct SignData {
    int pixels;
    int channels;
    TfLiteType type;
    int zero;
    int8_t positive;
    int8_t negative;
};

void* InitSigns(TfLiteContext* context, const char*, size_t) { return Allocate(context, sizeof(SignData)); }

TfLiteStatus PrepareSigns(TfLiteContext* context, TfLiteNode* node, bool of_values) {
    Prepared input(context, node, 0, false), output(context, node, 0, true);
    auto* data = static_cast<SignData*>(node->user_data);
    const TfLiteTensor* values = of_values ? input.get() : output.get();
    const TfLiteTensor* words = of_values ? output.get() : input.get();
    TF_LITE_ENSURE(context, data != nullptr);
    TF_LITE_ENSURE(
        context, values->type == kTfLiteFloat32 || values->type == kTfLiteInt8 || values->type == kTfLiteBool);
    TF_LITE_ENSURE_EQ(context, words->type, kTfLiteInt32);
    data->pixels = Pixels(values);
    data->channels = Channels(values);
    data->type = values->type;
    data->zero = values->params.zero_point;
    if (values->type == kTfLiteInt8) {
        const int step = static_cast<int>(1.0f / values->params.scale + 0.5f);
        data->positive = static_cast<int8_t>(data->zero + step > 127 ? 127 : data->zero + step);
        data->negative = static_cast<int8_t>(data->zero - step < -128 ? -128 : data->zero - step);
    }
    if (values->type == kTfLiteBool) {
        /* True is +1. */
        data->zero = 1;
        data->positive = 1;
        data->negative = 0;
    }
    TF_LITE_ENSURE_EQ(context, Channels(words), Words(data->channels));
    return kTfLiteOk;
}

TfLiteStatus PrepareQuantize(TfLiteContext* context, TfLiteNode* node) { return PrepareSigns(context, node, true); }

TfLiteStatus PrepareDequantize(TfLiteContext* context, TfLiteNode* node) { return PrepareSigns(context, node, false); }

TfLiteStatus Quantize(TfLiteContext* context, TfLiteNode* node) {
    const auto* data = static_cast<const SignData*>(node->user_data);
    const void* values = InputData(context, node, 0);
    auto* words = static_cast<uint32_t*>(OutputData(context, node, 0));
    for (int pixel = 0; pixel < data->pixels; ++pixel, words += Words(data->channels)) {
        const int first = pixel * data->channels;
        if (data->type == kTfLiteFloat32) {
            kbnn_signs_of_float(static_cast<const float*>(values) + first, data->channels, words);
        } else {
            kbnn_signs_of_int8(static_cast<const int8_t*>(values) + first, data->channels, data->zero, words);
        }
    }
    return kTfLiteOk;
}

TfLiteStatus Dequantize(TfLiteContext* context, TfLiteNode* node) {
    const auto* data = static_cast<const SignData*>(node->user_data);
    const auto* words = static_cast<const uint32_t*>(InputData(context, node, 0));
    void* values = OutputData(context, node, 0);
    for (int pixel = 0, k = 0; pixel < data->pixels; ++pixel, words += Words(data->channels)) {
        for (int channel = 0; channel < data->channels; ++channel, ++k) {
            const bool negative = (words[channel / 32] >> (channel % 32)) & 1u;
            if (data->type == kTfLiteFloat32) {
                static_cast<float*>(values)[k] = negative ? -1.0f : 1.0f;
            } else {
                static_cast<int8_t*>(values)[k] = negative ? data->negative : data->positive;
            }
        }
    }
    return kTfLiteOk;
}

/* ---- LceBconv2d --------------------------------------------------------------------------------------------------------- */

enum FusedActivation { kNone, kRelu, kReluN1To1, kRelu6 };

struct ConvolutionData {
    kbnn_bconv_shape shape;
    kbnn_bconv_params params;
    kbnn_float_scaled scaled;
    kbnn_rows rows[3];
    int batches;
    int out_height;
    int input_bytes;
    int output_bytes;
    Working scratch;
    bool pads_with_zeros;
    bool same;
    int activation;
    int largest; /* count of differing bits */
    int working; /* offset of the scaling in scratch */
    double scale;
    double zero;
};

struct ConvolutionOptions {
    ConvolutionData data;
    int channels_in;
};

void* InitConvolution(TfLiteContext* context, const char* buffer, size_t length) {
    auto* options = static_cast<ConvolutionOptions*>(Allocate(context, sizeof(ConvolutionOptions)));
    if (options == nullptr) {
        return nullptr;
    }
    *options = ConvolutionOptions();
    const auto map = flexbuffers::GetRoot(reinterpret_cast<const uint8_t*>(buffer), length).AsMap();
    kbnn_bconv_shape& p = options->data.shape;
    const int strides[2] = {map["stride_height"].AsInt32(), map["stride_width"].AsInt32()};
    const int dilations[2] = {map["dilation_height_factor"].AsInt32(), map["dilation_width_factor"].AsInt32()};
    const bool fit = Fit({strides[0], strides[1], dilations[0], dilations[1]}, UINT8_MAX);
    /* PrepareConvolution reports the error: it refuses 0 channels. */
    options->channels_in = fit ? map["channels_in"].AsInt32() : 0;
    p.stride_y = static_cast<uint8_t>(strides[0]);
    p.stride_x = static_cast<uint8_t>(strides[1]);
    p.dilation_y = static_cast<uint8_t>(dilations[0]);
    p.dilation_x = static_cast<uint8_t>(dilations[1]);
    options->data.same = map["padding"].AsInt32() == 0;
    options->data.pads_with_zeros = options->data.same && map["pad_values"].AsInt32() == 0;
    options->data.activation = map["fused_activation_function"].AsInt32();
    return options;
}

/* LCE folds count -> ±1 sum, the output's scale and its zero point into multiplier and offset. */
TfLiteStatus PrepareScaled(
    TfLiteContext* context, ConvolutionData* data, const TfLiteTensor* multiplier, const TfLiteTensor* bias,
    const TfLiteTensor* output) {
    const bool is_int8 = output->type == kTfLiteInt8;
    const int largest = data->largest;
    TF_LITE_ENSURE(context, is_int8 || output->type == kTfLiteFloat32);
    TF_LITE_ENSURE(context, multiplier != nullptr && bias != nullptr);
    TF_LITE_ENSURE_EQ(context, multiplier->type, kTfLiteFloat32);
    TF_LITE_ENSURE_EQ(context, bias->type, kTfLiteFloat32);
    int low = -largest, high = largest;
    if (data->activation != kNone) {
        low = data->activation == kReluN1To1 ? -1 : 0;
        high = data->activation == kReluN1To1 ? 1 : data->activation == kRelu6 ? 6 : largest;
    }
    data->scale = is_int8 ? static_cast<double>(output->params.scale) : 1.0;
    data->zero = is_int8 ? output->params.zero_point : 0.0;
    data->scaled.low = largest - (high > largest ? largest : high);
    data->scaled.high = largest - (low < -largest ? -largest : low);
    data->shape.write = is_int8 ? kbnn_write_rounded : kbnn_write_float;
    data->shape.pixel_bytes = static_cast<uint16_t>(data->shape.filters * (is_int8 ? 1 : 4));
    return kTfLiteOk;
}

/* Multipliers and offsets, in working memory: the file's are in flash and in another form. */
void Scale(ConvolutionData* data, const float* multiplier, const float* bias, float* working) {
    const int filters = data->shape.filters;
    for (int k = 0; k < filters; ++k) {
        const double factor = multiplier[k];
        working[k] = static_cast<float>(-factor / data->scale);
        working[filters + k] = static_cast<float>((bias[k] + data->largest * factor) / data->scale + data->zero);
    }
    data->scaled.multiplier = working;
    data->scaled.offset = working + filters;
    data->params.output = &data->scaled;
}

/* -1 where a count is above its threshold; kbnn_write_bits wants where it reaches a limit. */
void Limit(ConvolutionData* data, const int32_t* thresholds, uint16_t* limits) {
    const int largest = data->largest;
    for (int k = 0; k < data->shape.filters; ++k) {
        const int32_t threshold = thresholds[k];
        limits[k] = static_cast<uint16_t>(threshold < 0 ? 0 : threshold >= largest ? largest + 1 : threshold + 1);
    }
    data->params.output = limits;
}

TfLiteStatus PrepareConvolution(TfLiteContext* context, TfLiteNode* node) {
    auto* options = static_cast<ConvolutionOptions*>(node->user_data);
    TF_LITE_ENSURE(context, options != nullptr);
    ConvolutionData* data = &options->data;
    kbnn_bconv_shape& p = data->shape;
    Prepared input(context, node, 0, false), kernel(context, node, 1, false), multiplier(context, node, 2, false),
        bias(context, node, 3, false), thresholds(context, node, 4, false), output(context, node, 0, true);
    TF_LITE_ENSURE(context, input.get() != nullptr && kernel.get() != nullptr);
    TF_LITE_ENSURE_EQ(context, input.get()->type, kTfLiteInt32);
    TF_LITE_ENSURE_EQ(context, kernel.get()->type, kTfLiteInt32);
    TF_LITE_ENSURE_EQ(context, kernel.get()->dims->size, 4);
    const int* in = input.get()->dims->data;
    const int* k = kernel.get()->dims->data;
    const int* out = output.get()->dims->data;
    const int words = in[3];
    TF_LITE_ENSURE(context, options->channels_in > 0 && Words(options->channels_in) == words && words % k[3] == 0);
    const int groups = words / k[3];
    const int largest = k[1] * k[2] * (options->channels_in / groups);
    TF_LITE_ENSURE(context, largest < 65535 && k[0] % groups == 0);
    const int pad_top = Padding(in[1], k[1], p.stride_y, p.dilation_y, out[1], data->same);
    const int pad_left = Padding(in[2], k[2], p.stride_x, p.dilation_x, out[2], data->same);
    const int reach = (out[2] - 1) * p.stride_x + (k[2] - 1) * p.dilation_x + 1;
    const int ring_width = reach > pad_left + in[2] ? reach : pad_left + in[2];
    TF_LITE_ENSURE(context, Fit({k[1], k[2], pad_top, pad_left}, UINT8_MAX));
    TF_LITE_ENSURE(context, Fit({in[1], in[2], options->channels_in, out[1], out[2], ring_width}, UINT16_MAX));
    TF_LITE_ENSURE(context, Fit({k[1] * k[2] * k[3], k[0], output.get()->type == kTfLiteFloat32 ? 4 * k[0] : 0}, UINT16_MAX));
    /* LCE refuses such convolutions, too. */
    TF_LITE_ENSURE(context, !data->pads_with_zeros || data->activation == kNone);
    data->params.shape = &data->shape;
    data->params.weights = kernel.get()->data.i32;
    p.gather = kbnn_gather_any;
    p.count = kbnn_count_plain;
    p.plain = 1;
    p.pixels = 1;
    p.height = static_cast<uint16_t>(in[1]);
    p.width = static_cast<uint16_t>(in[2]);
    p.channels = static_cast<uint16_t>(options->channels_in);
    p.words = static_cast<uint16_t>(words);
    p.groups = static_cast<uint16_t>(groups);
    p.filters = static_cast<uint16_t>(k[0]);
    p.kernel_height = static_cast<uint8_t>(k[1]);
    p.kernel_width = static_cast<uint8_t>(k[2]);
    p.patch_words = static_cast<uint16_t>(k[1] * k[2] * k[3]);
    p.out_width = static_cast<uint16_t>(out[2]);
    p.pad_top = static_cast<uint8_t>(pad_top);
    p.pad_left = static_cast<uint8_t>(pad_left);
    p.ring_width = static_cast<uint16_t>(ring_width);
    data->batches = in[0];
    data->out_height = out[1];
    data->input_bytes = 4 * in[1] * in[2] * words;
    data->largest = largest;
    if (output.get()->type == kTfLiteInt32) {
        TF_LITE_ENSURE(context, thresholds.get() != nullptr);
        TF_LITE_ENSURE_EQ(context, thresholds.get()->type, kTfLiteInt32);
        p.write = kbnn_write_bits;
        p.pixel_bytes = static_cast<uint16_t>(4 * Words(k[0]));
    } else {
        TF_LITE_ENSURE_OK(context, PrepareScaled(context, data, multiplier.get(), bias.get(), output.get()));
    }
    TF_LITE_ENSURE(context, !data->pads_with_zeros || output.get()->type == kTfLiteFloat32);
    data->output_bytes = out[1] * out[2] * p.pixel_bytes;
    const kbnn_rows source = {0, static_cast<uint32_t>(4 * in[2] * words), p.height, KBNN_IMAGE};
    const kbnn_rows made = {0, static_cast<uint32_t>(out[2] * p.pixel_bytes), static_cast<uint16_t>(out[1]), KBNN_SCORES};
    const kbnn_rows scratch = {0, 0, 1, KBNN_ARENA};
    data->rows[0] = source;
    data->rows[1] = made;
    data->rows[2] = scratch;
    const int ring = ((k[1] - 1) * p.dilation_y + 1) * p.ring_width * words;
    data->working = 4 * (ring + p.patch_words + p.filters);
    return RequestWorking(context, static_cast<size_t>(data->working + 8 * p.filters), &data->scratch);
}

/* For padding with zeros: the kernels pad with +1, so what the padded taps added is subtracted. */
void RemovePadding(const ConvolutionData& data, const float* multiplier, int y, float* row) {
    const kbnn_bconv_shape& p = data.shape;
    const int own = p.words / p.groups;
    const int bits = p.channels / p.groups;
    for (int x = 0; x < p.out_width; ++x, row += p.filters) {
        for (int i = 0; i < p.kernel_height; ++i) {
            for (int j = 0; j < p.kernel_width; ++j) {
                const int at_y = y * p.stride_y + i * p.dilation_y - p.pad_top;
                const int at_x = x * p.stride_x + j * p.dilation_x - p.pad_left;
                if (at_y >= 0 && at_y < p.height && at_x >= 0 && at_x < p.width) {
                    continue;
                }
                const uint32_t zeros[1] = {0};
                for (int f = 0; f < p.filters; ++f) {
                    int negative = 0;
                    for (int k = 0; k < own; ++k) {
                        uint32_t count = 0;
                        const int tap = (f * p.kernel_height + i) * p.kernel_width + j;
                        kbnn_count_plain(zeros, static_cast<const uint32_t*>(data.params.weights) + tap * own + k, 1, 1, &count);
                        negative += static_cast<int>(count);
                    }
                    row[f] -= multiplier[f] * static_cast<float>(bits - 2 * negative);
                }
            }
        }
    }
}

TfLiteStatus Convolve(TfLiteContext* context, TfLiteNode* node) {
    ConvolutionData& data = static_cast<ConvolutionOptions*>(node->user_data)->data;
    const auto* input = static_cast<const unsigned char*>(InputData(context, node, 0));
    auto* output = static_cast<unsigned char*>(OutputData(context, node, 0));
    const kbnn_step step = {kbnn_bconv_of_bits, &data.params, 0, 0, 1, 2};
    kbnn_memory memory;
    memory.rows = data.rows;
    memory.base[KBNN_ARENA] = WorkingMemory(context, data.scratch);
    void* working = memory.base[KBNN_ARENA] + data.working;
    if (data.shape.write == kbnn_write_bits) {
        Limit(&data, static_cast<const int32_t*>(InputData(context, node, 4)), static_cast<uint16_t*>(working));
    } else {
        const auto* multiplier = static_cast<const float*>(InputData(context, node, 2));
        Scale(&data, multiplier, static_cast<const float*>(InputData(context, node, 3)), static_cast<float*>(working));
    }
    for (int batch = 0; batch < data.batches; ++batch) {
        memory.base[KBNN_IMAGE] = const_cast<unsigned char*>(input) + batch * data.input_bytes;
        memory.base[KBNN_SCORES] = output + batch * data.output_bytes;
        for (int y = 0; y < data.out_height; ++y) {
            step.kernel(&step, y, &memory);
            if (data.pads_with_zeros) {
                auto* row = reinterpret_cast<float*>(memory.base[KBNN_SCORES] + y * data.rows[1].pitch);
                RemovePadding(data, static_cast<const float*>(InputData(context, node, 2)), y, row);
            }
        }
    }
    return kTfLiteOk;
}

/* ---- LceBMaxPool2d ------------------------------------------------------------------------------------------------------ */

struct PoolData {
    kbnn_pool_params params;
    kbnn_rows rows[2];
    int batches;
    int out_height;
    int input_bytes;
    int output_bytes;
    bool same;
};

void* InitPool(TfLiteContext* context, const char* buffer, size_t length) {
    auto* data = static_cast<PoolData*>(Allocate(context, sizeof(PoolData)));
    if (data == nullptr) {
        return nullptr;
    }
    *data = PoolData();
    const auto map = flexbuffers::GetRoot(reinterpret_cast<const uint8_t*>(buffer), length).AsMap();
    const int sizes[2] = {map["filter_height"].AsInt32(), map["filter_width"].AsInt32()};
    const int strides[2] = {map["stride_height"].AsInt32(), map["stride_width"].AsInt32()};
    /* PreparePool reports the error: it refuses a window of height 0. */
    const bool fit = Fit({sizes[0], sizes[1], strides[0], strides[1]}, UINT8_MAX);
    data->params.size_y = static_cast<uint8_t>(fit ? sizes[0] : 0);
    data->params.size_x = static_cast<uint8_t>(sizes[1]);
    data->params.stride_y = static_cast<uint8_t>(strides[0]);
    data->params.stride_x = static_cast<uint8_t>(strides[1]);
    data->same = map["padding"].AsInt32() == 0;
    return data;
}

TfLiteStatus PreparePool(TfLiteContext* context, TfLiteNode* node) {
    auto* data = static_cast<PoolData*>(node->user_data);
    TF_LITE_ENSURE(context, data != nullptr);
    Prepared input(context, node, 0, false), output(context, node, 0, true);
    TF_LITE_ENSURE_EQ(context, input.get()->type, kTfLiteInt32);
    const int* in = input.get()->dims->data;
    const int* out = output.get()->dims->data;
    kbnn_pool_params& p = data->params;
    TF_LITE_ENSURE(context, p.size_y > 0 && Fit({in[1], in[2], in[3], out[1], out[2]}, UINT16_MAX));
    p.height = static_cast<uint16_t>(in[1]);
    p.width = static_cast<uint16_t>(in[2]);
    p.channels = static_cast<uint16_t>(in[3]);
    p.out_width = static_cast<uint16_t>(out[2]);
    p.pad_top = static_cast<uint8_t>(Padding(in[1], p.size_y, p.stride_y, 1, out[1], data->same));
    p.pad_left = static_cast<uint8_t>(Padding(in[2], p.size_x, p.stride_x, 1, out[2], data->same));
    data->batches = in[0];
    data->out_height = out[1];
    data->input_bytes = 4 * in[1] * in[2] * in[3];
    data->output_bytes = 4 * out[1] * out[2] * out[3];
    const kbnn_rows source = {0, static_cast<uint32_t>(4 * in[2] * in[3]), p.height, KBNN_IMAGE};
    const kbnn_rows made = {0, static_cast<uint32_t>(4 * out[2] * out[3]), static_cast<uint16_t>(out[1]), KBNN_SCORES};
    data->rows[0] = source;
    data->rows[1] = made;
    return kTfLiteOk;
}

TfLiteStatus Pool(TfLiteContext* context, TfLiteNode* node) {
    const auto& data = *static_cast<const PoolData*>(node->user_data);
    const auto* input = static_cast<const unsigned char*>(InputData(context, node, 0));
    auto* output = static_cast<unsigned char*>(OutputData(context, node, 0));
    const kbnn_step step = {kbnn_max_pool_bits, &data.params, 0, 0, 1, 0};
    kbnn_memory memory;
    memory.rows = data.rows;
    memory.base[KBNN_ARENA] = nullptr;
    for (int batch = 0; batch < data.batches; ++batch) {
        memory.base[KBNN_IMAGE] = const_cast<unsigned char*>(input) + batch * data.input_bytes;
        memory.base[KBNN_SCORES] = output + batch * data.output_bytes;
        for (int y = 0; y < data.out_height; ++y) {
            step.kernel(&step, y, &memory);
        }
    }
    return kTfLiteOk;
}

Registration Made(
    void* (*init)(TfLiteContext*, const char*, size_t), TfLiteStatus (*prepare)(TfLiteContext*, TfLiteNode*),
    TfLiteStatus (*invoke)(TfLiteContext*, TfLiteNode*)) {
    Registration made = Registration();
    made.init = init;
    made.prepare = prepare;
    made.invoke = invoke;
    return made;
}

}  // namespace

Registration* RegisterLceQuantize() {
    static Registration made = Made(InitSigns, PrepareQuantize, Quantize);
    return &made;
}

Registration* RegisterLceDequantize() {
    static Registration made = Made(InitSigns, PrepareDequantize, Dequantize);
    return &made;
}

Registration* RegisterLceBconv2d() {
    static Registration made = Made(InitConvolution, PrepareConvolution, Convolve);
    return &made;
}

Registration* RegisterLceBMaxPool2d() {
    static Registration made = Made(InitPool, PreparePool, Pool);
    return &made;
}

}  // namespace kbnn
