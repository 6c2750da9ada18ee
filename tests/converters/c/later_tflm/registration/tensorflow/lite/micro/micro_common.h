#pragma once
#define WITH_TFLM_REGISTRATION
#include "tensorflow/lite/c/common.h"

struct TFLMRegistration {
    void* (*init)(TfLiteContext*, const char*, size_t);
    void (*free)(TfLiteContext*, void*);
    TfLiteStatus (*prepare)(TfLiteContext*, TfLiteNode*);
    TfLiteStatus (*invoke)(TfLiteContext*, TfLiteNode*);
    void (*reset)(TfLiteContext*, void*);
    int32_t builtin_code;
    const char* custom_name;
};
