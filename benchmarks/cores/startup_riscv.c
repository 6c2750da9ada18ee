/* The console of an emulated RISC-V core; picolibc starts and ends the program. */
void put(const char *text);
void put(const char *text) {
    register int a0 __asm__("a0") = 0x04;
    register const void *a1 __asm__("a1") = text;
    __asm__ volatile(".option push\n\t.option norvc\n\tslli x0, x0, 0x1f\n\tebreak\n\tsrai x0, x0, 0x7\n\t.option pop"
                     : "+r"(a0)
                     : "r"(a1)
                     : "memory");
}
