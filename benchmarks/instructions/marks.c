/* The trace tells valgrind what to count, by requests that only a program compiled with its header can make. */
#include <valgrind/callgrind.h>

void start(void) { CALLGRIND_START_INSTRUMENTATION; }

void zero(void) { CALLGRIND_ZERO_STATS; }

/* From here on nothing is counted; at the next call it is again. */
void toggle(void) { CALLGRIND_TOGGLE_COLLECT; }

void dump(const char *name) { CALLGRIND_DUMP_STATS_AT(name); }
