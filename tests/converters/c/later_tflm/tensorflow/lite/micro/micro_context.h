#pragma once
#include "tensorflow/lite/c/common.h"

namespace tflite {

class MicroContext {
  public:
    virtual ~MicroContext() = default;
    virtual void* AllocatePersistentBuffer(size_t bytes) = 0;
    virtual TfLiteStatus RequestScratchBufferInArena(size_t bytes, int* buffer_idx) = 0;
    virtual void* GetScratchBuffer(int buffer_idx) = 0;
    virtual void DeallocateTempTfLiteTensor(TfLiteTensor* tensor) = 0;
    TfLiteTensor* AllocateTempInputTensor(const TfLiteNode* node, int index);
    TfLiteTensor* AllocateTempOutputTensor(const TfLiteNode* node, int index);
};

inline MicroContext* GetMicroContext(const TfLiteContext* context) {
    return reinterpret_cast<MicroContext*>(context->impl_);
}

}  // namespace tflite
