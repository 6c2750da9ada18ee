/* Larq Compute Engine's operators for TensorFlow Lite for Microcontrollers.
 *
 *     tflite::MicroMutableOpResolver<10> resolver;
 *     kbnn::AddLceOperators(resolver);   // beside the built-in operators of the file
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef KBNN_TFLM_H
#define KBNN_TFLM_H

#if defined(__has_include)
#if __has_include("tensorflow/lite/micro/micro_context.h")
#define KBNN_TFLM_CONTEXT 1
#endif
#endif
#ifndef KBNN_TFLM_CONTEXT
#define KBNN_TFLM_CONTEXT 0 /* the API of 2020 */
#endif

#if KBNN_TFLM_CONTEXT
#include "tensorflow/lite/micro/micro_common.h"
#else
#include "tensorflow/lite/c/common.h"
#endif

namespace kbnn {

#if KBNN_TFLM_CONTEXT
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
