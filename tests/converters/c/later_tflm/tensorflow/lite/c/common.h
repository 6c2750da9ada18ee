// The declarations in TensorFlow Lite Micro's common.h since 2021 that our operators use.
#pragma once
#include <cstddef>
#include <cstdint>

enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };
enum TfLiteType { kTfLiteNoType = 0, kTfLiteFloat32 = 1, kTfLiteInt32 = 2, kTfLiteBool = 6, kTfLiteInt8 = 9 };

struct TfLiteIntArray {
    int size;
    int data[5];
};

struct TfLiteQuantizationParams {
    float scale;
    int32_t zero_point;
};

union TfLitePtrUnion {
    char* raw;
    const char* raw_const;
    float* f;
    int32_t* i32;
    int8_t* int8;
    void* data;
};

struct TfLiteTensor {
    TfLiteType type;
    TfLitePtrUnion data;
    TfLiteIntArray* dims;
    TfLiteQuantizationParams params;
    size_t bytes;
};

struct TfLiteEvalTensor {
    TfLitePtrUnion data;
    TfLiteIntArray* dims;
    TfLiteType type;
};

struct TfLiteNode {
    TfLiteIntArray* inputs;
    TfLiteIntArray* outputs;
    void* user_data;
};

struct TfLiteContext {
    void* impl_;
};

#ifndef WITH_TFLM_REGISTRATION
struct TfLiteRegistration {
    void* (*init)(TfLiteContext*, const char*, size_t);
    void (*free)(TfLiteContext*, void*);
    TfLiteStatus (*prepare)(TfLiteContext*, TfLiteNode*);
    TfLiteStatus (*invoke)(TfLiteContext*, TfLiteNode*);
};
#endif

#define TF_LITE_ENSURE(context, condition) \
    do {                                   \
        (void)(context);                   \
        if (!(condition)) {                \
            return kTfLiteError;           \
        }                                  \
    } while (0)
#define TF_LITE_ENSURE_EQ(context, a, b) TF_LITE_ENSURE(context, (a) == (b))
#define TF_LITE_ENSURE_OK(context, status) TF_LITE_ENSURE(context, (status) == kTfLiteOk)
