/* Larq Compute Engine's operators for TensorFlow Lite for Microcontrollers.
 *
 *     tflite::MicroMutableOpResolver<10> resolver;
 *     kbnn::AddLceOperators(resolver);   // after the built-in operators of the file
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef KBNN_TFLM_H
#define KBNN_TFLM_H

/* Which API the headers offer: MicroContext came first (2021), then TFLMRegistration (2023). */
#define KBNN_TFLM_CONTEXT 0
#define KBNN_TFLM_REGISTRATION 0
#if defined(__has_include)
#if __has_include("tensorflow/lite/micro/micro_context.h")
#undef KBNN_TFLM_CONTEXT
#define KBNN_TFLM_CONTEXT 1
#endif
#if __has_include("tensorflow/lite/micro/micro_common.h")
#undef KBNN_TFLM_REGISTRATION
#define KBNN_TFLM_REGISTRATION 1
#endif
#endif

#if KBNN_TFLM_REGISTRATION
#include "tensorflow/lite/micro/micro_common.h"
#else
#include "tensorflow/lite/c/common.h"
#endif

namespace kbnn {

#if KBNN_TFLM_REGISTRATION
using Registration = TFLMRegistration;
#else
using Registration = TfLiteRegistration;
#endif

Registration* RegisterLceQuantize();
Registration* RegisterLceDequantize();
Registration* RegisterLceBconv2d();
Registration* RegisterLceBMaxPool2d();

/* Adds the four operators to a MicroMutableOpResolver. */
template <typename Resolver>
TfLiteStatus AddLceOperators(Resolver& resolver) {
    if (resolver.AddCustom("LceQuantize", RegisterLceQuantize()) != kTfLiteOk ||
        resolver.AddCustom("LceDequantize", RegisterLceDequantize()) != kTfLiteOk ||
        resolver.AddCustom("LceBconv2d", RegisterLceBconv2d()) != kTfLiteOk ||
        resolver.AddCustom("LceBMaxPool2d", RegisterLceBMaxPool2d()) != kTfLiteOk) {
        return kTfLiteError;
    }
    return kTfLiteOk;
}

}  // namespace kbnn

#endif
