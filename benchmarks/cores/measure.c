/* Instructions and stack of one run of a network, on an emulator that executes one instruction a nanosecond of its own
 * time (-icount shift=0). Prints `ticks T calibration C stack S`: C ticks are CALIBRATION instructions. */
#include <stdint.h>

#include NETWORK_HEADER

#define JOINED(a, b) a##_##b
#define NAMED(a, b) JOINED(a, b)
#ifdef EMPTY
/* The same program without the network, whose size is subtracted. */
static int empty(const int8_t *given, int8_t *result, void *memory) {
    ((volatile int8_t *)memory)[0] = given[0];
    result[0] = ((volatile int8_t *)memory)[0];
    return 0;
}
#define RUN empty
#else
#define RUN NAMED(NETWORK, run)
#endif
#define PAINT 0xA5C3A5C3u
#define CALIBRATION_LOOPS 1000000u

void put(const char *text);

static uint32_t arena[ARENA_BYTES / 4];
static int8_t image[IMAGE_BYTES];
static int8_t scores[CLASSES];

#ifdef __riscv
extern unsigned char __heap_start[];
#define STACK_LIMIT ((uint32_t *)(void *)__heap_start)
static void start(void) {
}
static uint32_t elapsed(void) {
    uint32_t count;
    __asm__ volatile("csrr %0, instret" : "=r"(count));
    return count;
}
#define COUNTER_MASK 0xFFFFFFFFu
#else
extern uint32_t bss_end[];
#define STACK_LIMIT bss_end
#define SYST ((volatile uint32_t *)0xE000E010u)
static void start(void) {
    SYST[1] = 0xFFFFFFu;
    SYST[2] = 0;
    SYST[0] = 5; /* the core's clock */
    while (SYST[2] == 0) {
    }
}
static uint32_t elapsed(void) {
    return 0xFFFFFFu - SYST[2];
}
#define COUNTER_MASK 0xFFFFFFu
#endif

static void put_number(const char *label, uint32_t value) {
    char digits[12];
    char *at = digits + sizeof(digits) - 1;
    *at = 0;
    do {
        *--at = (char)('0' + value % 10u);
        value /= 10u;
    } while (value != 0);
    put(label);
    put(at);
}

/* Two instructions a turn. */
static void spin(uint32_t turns) {
#ifdef __riscv
    __asm__ volatile("1: addi %0, %0, -1\n\tbnez %0, 1b" : "+r"(turns));
#else
    __asm__ volatile(".syntax unified\n1: subs %0, %0, #1\n\tbne 1b" : "+l"(turns) : : "cc");
#endif
}

static uint32_t *stack_pointer(void) {
    return (uint32_t *)__builtin_frame_address(0);
}

static uint32_t __attribute__((noinline)) run(void) {
    uint32_t begin;
    start();
    begin = elapsed();
    RUN(image, scores, arena);
    return (elapsed() - begin) & COUNTER_MASK;
}

static uint32_t __attribute__((noinline)) calibrate(void) {
    uint32_t begin;
    start();
    begin = elapsed();
    spin(CALIBRATION_LOOPS);
    return (elapsed() - begin) & COUNTER_MASK;
}

int main(void) {
    uint32_t ticks, used;
    uint32_t *limit = STACK_LIMIT;
    uint32_t *top = stack_pointer() - 32;
    for (int i = 0; i < IMAGE_BYTES; ++i) {
        image[i] = (int8_t)((i * 37) % 251 - 125);
    }
    for (uint32_t *word = limit; word < top; ++word) {
        *word = PAINT;
    }
    ticks = run();
    for (used = 0; limit[used] == PAINT; ++used) {
    }
    put_number("ticks ", ticks);
    put_number(" calibration ", calibrate());
    put_number(" stack ", (uint32_t)((unsigned char *)stack_pointer() - (unsigned char *)(limit + used)));
    put("\n");
    return 0;
}
