# Prints the properties of a device as key=value lines, without those that are unknown.
# Plain POSIX sh for Linux, Android and macOS. It changes nothing.
say() { [ -n "$2" ] && echo "$1=$2"; }
first() { head -n 1 "$1" 2>/dev/null | tr -d '\0\r'; }

say machine "$(uname -m)"
say system "$(uname -s) $(uname -r)"

bits=$(getconf LONG_BIT 2>/dev/null)
# Older versions of Android have no getconf; the fifth byte of a program tells its word size.
[ -n "$bits" ] || case "$(od -An -tu1 -j4 -N1 /proc/self/exe 2>/dev/null | tr -d ' ')" in 1) bits=32 ;; 2) bits=64 ;; esac
say word_bits "$bits"

model=$(first /proc/device-tree/model)
[ -n "$model" ] || model=$(getprop ro.product.model 2>/dev/null)
[ -n "$model" ] || model=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo 2>/dev/null | head -n 1)
say model "$model"
say emulator "$(getprop ro.boot.qemu 2>/dev/null)$(getprop ro.kernel.qemu 2>/dev/null)"

cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null)
[ -n "$cores" ] || cores=$(grep -c '^processor' /proc/cpuinfo 2>/dev/null)
say cores "$cores"
say governor "$(cat /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor 2>/dev/null | sort -u | tr '\n' ' ')"

libc=$(getconf GNU_LIBC_VERSION 2>/dev/null)
[ -n "$libc" ] || { [ -e /system/bin/linker64 ] || [ -e /system/bin/linker ]; } && [ -z "$libc" ] && libc="bionic $(getprop ro.build.version.sdk 2>/dev/null)"
[ -n "$libc" ] || libc=$(ldd --version 2>&1 | sed -n '1s/^musl.*/musl/p')
say c_library "$libc"

say memory_available_kb "$(sed -n 's/^MemAvailable: *\([0-9]*\).*/\1/p' /proc/meminfo 2>/dev/null)"
say load "$(cut -d ' ' -f 1 /proc/loadavg 2>/dev/null)"
say temperatures "$(cat /sys/class/thermal/thermal_zone*/temp 2>/dev/null | tr '\n' ' ')"

# Raspberry Pi: bits 0-3 now, 16-19 since the start. Android: 0 (none) to 6. x86: how often a core was throttled.
say pi_throttled "$(vcgencmd get_throttled 2>/dev/null | sed -n 's/^throttled=//p')"
say android_thermal_status "$(dumpsys thermalservice 2>/dev/null | sed -n 's/^Thermal Status: *//p' | head -n 1)"
say throttle_count "$(cat /sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count 2>/dev/null | awk '{ n += $1 } END { if (NR) print n }')"
exit 0
