// Runs LCE's operators through the API of MicroContext. `graph.h` defines `tensors` and `operators`; images come from
// stdin, and results go to stdout.
#include <cstdio>
#include <cstring>

#include "kbnn_tflm.h"
#include "tensorflow/lite/micro/kernels/kernel_util.h"

struct Operator {
    const char* name;
    TfLiteIntArray inputs;
    TfLiteIntArray outputs;
    const unsigned char* options;
    size_t length;
};

#include "graph.h"

namespace {

alignas(16) unsigned char memory[1 << 20];
size_t used = 0;
void* scratch[16];
int scratches = 0;
TfLiteEvalTensor views[sizeof(tensors) / sizeof(tensors[0])];

class Context : public tflite::MicroContext {
  public:
    void* AllocatePersistentBuffer(size_t bytes) override {
        void* found = memory + used;
        used += (bytes + 15) / 16 * 16;
        return used <= sizeof(memory) ? found : nullptr;
    }
    TfLiteStatus RequestScratchBufferInArena(size_t bytes, int* number) override {
        *number = scratches;
        scratch[scratches++] = AllocatePersistentBuffer(bytes);
        return kTfLiteOk;
    }
    void* GetScratchBuffer(int number) override { return scratch[number]; }
    void DeallocateTempTfLiteTensor(TfLiteTensor*) override { --temporaries; }
    int temporaries = 0;
};

struct Registered {
    const char* name;
    kbnn::Registration* operation;
};

struct Resolver {
    Registered found[4];
    int count = 0;
    TfLiteStatus AddCustom(const char* name, const kbnn::Registration* operation) {
        found[count++] = {name, const_cast<kbnn::Registration*>(operation)};
        return kTfLiteOk;
    }
};

TfLiteTensor* Temporary(tflite::MicroContext* context, int index) {
    if (index < 0) {
        return nullptr;
    }
    ++static_cast<Context*>(context)->temporaries;
    return &tensors[index];
}

}  // namespace

namespace tflite {

TfLiteTensor* MicroContext::AllocateTempInputTensor(const TfLiteNode* node, int index) {
    return Temporary(this, node->inputs->data[index]);
}

TfLiteTensor* MicroContext::AllocateTempOutputTensor(const TfLiteNode* node, int index) {
    return Temporary(this, node->outputs->data[index]);
}

namespace micro {

const TfLiteEvalTensor* GetEvalInput(const TfLiteContext*, const TfLiteNode* node, int index) {
    return &views[node->inputs->data[index]];
}

TfLiteEvalTensor* GetEvalOutput(const TfLiteContext*, const TfLiteNode* node, int index) {
    return &views[node->outputs->data[index]];
}

}  // namespace micro
}  // namespace tflite

int main() {
    Context micro;
    TfLiteContext context = {&micro};
    Resolver resolver;
    if (kbnn::AddLceOperators(resolver) != kTfLiteOk || resolver.count != 4) {
        return 2;
    }
    for (size_t k = 0; k < sizeof(tensors) / sizeof(tensors[0]); ++k) {
        views[k] = {tensors[k].data, tensors[k].dims, tensors[k].type};
    }
    kbnn::Registration* chosen[OPERATORS];
    TfLiteNode nodes[OPERATORS];
    for (int k = 0; k < OPERATORS; ++k) {
        Operator& each = operators[k];
        for (const Registered& one : resolver.found) {
            chosen[k] = strcmp(one.name, each.name) == 0 ? one.operation : chosen[k];
        }
        void* data = chosen[k]->init(&context, reinterpret_cast<const char*>(each.options), each.length);
        nodes[k] = {&each.inputs, &each.outputs, data};
        if (chosen[k]->prepare(&context, &nodes[k]) != kTfLiteOk || micro.temporaries != 0) {
            return 3;
        }
    }
    TfLiteTensor& image = tensors[IMAGE];
    TfLiteTensor& result = tensors[RESULT];
    while (fread(image.data.raw, 1, image.bytes, stdin) == image.bytes) {
        for (int k = 0; k < OPERATORS; ++k) {
            if (chosen[k]->invoke(&context, &nodes[k]) != kTfLiteOk) {
                return 4;
            }
        }
        fwrite(result.data.raw, 1, result.bytes, stdout);
    }
    return 0;
}
