/* Every allocation of a function made to fail, one after the other: it must fail cleanly. */
#ifndef TESTS_MEMORY_H
#define TESTS_MEMORY_H

#include "base/alloc.h"
#include "tap.h"
#include "tenon/tenon.h"

/* One run with the n-th allocation failing (0: none); its status. *reached: the run asked for so
 * many. *clean becomes false where what it left behind is not as the status says. */
typedef int (*memory_run_fn)(int64_t n, bool *reached, bool *clean);

/* More than `least` runs must have failed, all with TN_EMEMORY, and kept nothing. Blocks that
 * threads put by for later are allowed for. */
static inline void memory_check(memory_run_fn run, int least) {
    bool reached = true, clean = true;
    int failures = 0, wrong = 0;
    for (int i = 0; i < 3; i++) wrong += run(0, &reached, &clean) != 0;
    tn_memory_clear_cache();
    int64_t live = tni_alloc_live();
    reached = true;
    for (int64_t n = 1; reached; n++) {
        int status = run(n, &reached, &clean);
        failures += status != 0;
        if (status && status != TN_EMEMORY && !wrong++) diag("%d: %s", status, tn_error());
    }
    tn_memory_clear_cache();
    int64_t more = tni_alloc_live() - live;
    ok(failures > least && !wrong && clean && more < 64,
       "%d allocations failed once each, %d not cleanly, %lld blocks more", failures, wrong,
       (long long)more);
}

#endif
