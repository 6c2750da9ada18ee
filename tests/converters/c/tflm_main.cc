// Runs model.tflite of the working directory in TensorFlow Lite Micro, on the images of input.bin, into output.bin.
#include <cstdio>

#include "kbnn_tflm.h"
#include "tensorflow/lite/micro/kernels/all_ops_resolver.h"
#include "tensorflow/lite/micro/micro_error_reporter.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/schema/schema_generated.h"

extern "C" void DebugLog(const char* text) { printf("%s", text); }

// The arena starts 4096 bytes in, because this version of the planner writes to index -1 for omitted optional inputs.
alignas(16) static unsigned char memory[640 * 1024];
alignas(16) static unsigned char model[256 * 1024];

int main() {
    FILE* file = fopen("model.tflite", "rb");
    if (file == nullptr || fread(model, 1, sizeof(model), file) == 0) {
        return 3;
    }
    fclose(file);
    tflite::MicroErrorReporter reporter;
    tflite::ops::micro::AllOpsResolver resolver;
    if (kbnn::AddLceOperators(resolver) != kTfLiteOk) {
        return 4;
    }
    tflite::MicroInterpreter interpreter(
        tflite::GetModel(model), resolver, memory + 4096, sizeof(memory) - 4096, &reporter);
    if (interpreter.AllocateTensors() != kTfLiteOk) {
        return 1;
    }
    FILE* images = fopen("input.bin", "rb");
    FILE* scores = fopen("output.bin", "wb");
    TfLiteTensor* input = interpreter.input(0);
    while (fread(input->data.raw, 1, input->bytes, images) == input->bytes) {
        if (interpreter.Invoke() != kTfLiteOk) {
            return 2;
        }
        fwrite(interpreter.output(0)->data.raw, 1, interpreter.output(0)->bytes, scores);
    }
    fclose(scores);
    printf("DONE\n");
    return 0;
}
