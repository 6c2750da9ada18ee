// A stand-in for lce_benchmark_model that can be compiled for any architecture: the same flags and the same output.
// An "inference" counts the bits in which the model's bytes and the input's bytes differ. The count is the same on
// every device, so that transfers in both directions can be checked under emulation.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

static const char *kFlags[] = {"graph",          "num_threads",         "warmup_runs",        "num_runs",
                               "min_secs",       "max_secs",            "warmup_min_secs",    "use_indirect_bgemm",
                               "use_reference_bconv", "enable_op_profiling", "input_layer",   "input_layer_shape",
                               "input_layer_value_files", "output_filepath"};

static const char *flag(int argc, char **argv, const char *name, const char *otherwise) {
  size_t length = strlen(name);
  for (int i = 1; i < argc; ++i)
    if (!strncmp(argv[i], "--", 2) && !strncmp(argv[i] + 2, name, length) && argv[i][length + 2] == '=')
      return argv[i] + length + 3;
  return otherwise;
}

static uint8_t *contents(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  if (!file) return NULL;
  uint8_t *bytes = malloc(1 << 24);
  *size = fread(bytes, 1, 1 << 24, file);
  fclose(file);
  return bytes;
}

static uint32_t infer(const uint8_t *model, size_t size, const uint8_t *input, size_t input_size) {
  uint32_t bits = 0;
  for (size_t i = 0; i < size; ++i) bits += __builtin_popcount(model[i] ^ (input_size ? input[i % input_size] : 0));
  return bits;
}

static double now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return 1e6 * t.tv_sec + t.tv_nsec / 1e3;
}

static double measure(int runs, const uint8_t *model, size_t size, const uint8_t *input, size_t input_size,
                      uint32_t *result) {
  double sum = 0, squares = 0, first = 0, last = 0, low = INFINITY, high = 0;
  for (int i = 0; i < runs; ++i) {
    double start = now_us();
    *result = infer(model, size, input, input_size);
    last = now_us() - start;
    if (!i) first = last;
    if (last < low) low = last;
    if (last > high) high = last;
    sum += last;
    squares += last * last;
  }
  double mean = runs ? sum / runs : 0;
  if (runs < 2)
    printf(runs ? "INFO: count=1 curr=%.0f\n\n" : "INFO: count=0\n\n", last);
  else
    printf("INFO: count=%d first=%.0f curr=%.0f min=%.0f max=%.0f avg=%g std=%g\n\n", runs, first, last, low, high, mean,
           sqrt(fmax(0, squares / runs - mean * mean)));
  return mean;
}

int main(int argc, char **argv) {
  printf("INFO: STARTING!\n");
  for (int i = 1; i < argc; ++i) {
    if (!strcmp(argv[i], "--help")) {
      fprintf(stderr, "ERROR: usage: %s <flags>\nFlags:\n", argv[0]);
      for (size_t k = 0; k < sizeof kFlags / sizeof *kFlags; ++k)
        fprintf(stderr, "\t--%s=\tstring\toptional\t\n", kFlags[k]);
      return 1;
    }
    int known = 0;
    for (size_t k = 0; k < sizeof kFlags / sizeof *kFlags; ++k) known |= !!flag(2, argv + i - 1, kFlags[k], NULL);
    if (!known) printf("WARN: Unconsumed cmdline flags: %s\n", argv[i]);
  }
  struct utsname machine;
  uname(&machine);
  printf("INFO: Machine: %s, %zu bit\n", machine.machine, 8 * sizeof(void *));

  size_t size = 0, input_size = 0;
  const char *graph = flag(argc, argv, "graph", "");
  uint8_t *model = contents(graph, &size), *input = NULL;
  if (!model || size < 8 || memcmp(model + 4, "TFL3", 4)) {
    fprintf(stderr, model ? "ERROR: The model is not a valid Flatbuffer buffer\n" : "ERROR: Could not open '%s'.\n",
            graph);
    return 1;
  }
  const char *values = strchr(flag(argc, argv, "input_layer_value_files", ""), ':');
  if (values && !(input = contents(values + 1, &input_size))) {
    fprintf(stderr, "ERROR: Failed to read the input layer value file %s\n", values + 1);
    return 1;
  }

  uint32_t result = 0;
  measure(atoi(flag(argc, argv, "warmup_runs", "1")), model, size, input, input_size, &result);
  double mean = measure(atoi(flag(argc, argv, "num_runs", "50")), model, size, input, input_size, &result);
  const char *output = flag(argc, argv, "output_filepath", NULL);
  if (output) {
    FILE *file = fopen(output, "wb");
    if (!file || fwrite(&result, sizeof result, 1, file) != 1 || fclose(file)) return 1;
  }
  if (!strcmp(flag(argc, argv, "enable_op_profiling", "false"), "true"))
    printf("INFO: Operator-wise Profiling Info for Regular Benchmark Runs:\n"
           "============================== Summary by node type ==============================\n"
           "\t[Node type]\t[count]\t[avg ms]\t[avg %%]\t[cdf %%]\t[mem KB]\t[times called]\n"
           "\tLceBconv2d\t1\t%.3f\t100.000%%\t100.000%%\t0.000\t1\n\n",
           mean / 1e3);
  return 0;
}
