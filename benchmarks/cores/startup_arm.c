/* Vectors and reset of an emulated Cortex-M. With HOSTED, newlib's printf goes to the emulator's console. */
#include <stdint.h>

extern uint32_t data_load[], data_begin[], data_end[], bss_begin[], bss_end[];
extern unsigned char stack_top[];
extern int main(void);
#ifdef HOSTED
extern void initialise_monitor_handles(void);
#endif

void reset(void);

static int semihosting(int operation, const void *argument) {
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void put(const char *text);
void put(const char *text) {
    semihosting(0x04, text);
}

static void leave(int status) {
    /* SYS_EXIT_EXTENDED with ADP_Stopped_ApplicationExit. */
    const uint32_t block[2] = {0x20026u, (uint32_t)status};
    semihosting(0x20, block);
    for (;;) {
    }
}

static void fault(void) {
    put("FAULT\n");
    leave(99);
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void))stack_top, reset, fault, fault, fault, fault, fault, 0, 0, 0, 0, fault, fault, 0, fault, fault,
};

void reset(void) {
    const uint32_t *from = data_load;
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    *(volatile uint32_t *)0xE000ED88u |= 0xF00000u; /* CPACR: the coprocessors of floating point and vectors */
    __asm__ volatile("dsb\n\tisb");
#endif
    for (uint32_t *to = data_begin; to != data_end;) {
        *to++ = *from++;
    }
    for (uint32_t *to = bss_begin; to != bss_end;) {
        *to++ = 0;
    }
#ifdef HOSTED
    initialise_monitor_handles();
#endif
    leave(main());
}
