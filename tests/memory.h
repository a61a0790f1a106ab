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

/* The same of a run on this thread alone, which is told which allocation fails: each failure has
 * its sentence and leaves not a block. */
static inline void memory_each(int (*run)(int64_t n, void *ud), void *ud, int least) {
    int failures = 0, wrong = tn_set_threads(1), leaks = 0;
    for (int i = 0; i < 20; i++) wrong += run(0, ud) != 0; /* what is made once, and kept, stays */
    bool reached = true;
    for (int64_t n = 1; reached; n++) {
        tn_memory_clear_cache();
        int64_t live = tni_alloc_live(), asked = tni_alloc_count();
        tni_fail_alloc_at(n);
        int status = run(n, ud);
        reached = tni_alloc_count() - asked >= n;
        tni_fail_alloc_at(0);
        tn_memory_clear_cache();
        failures += status != 0;
        if (status && (status != TN_EMEMORY || !strstr(tn_error(), "memory")) && !wrong++)
            diag("allocation %d: status %d, \"%s\"", (int)n, status, tn_error());
        if (tni_alloc_live() != live && leaks++ < 3)
            diag("allocation %d leaves %d blocks", (int)n, (int)(tni_alloc_live() - live));
    }
    ok(failures > least, "%d runs failed, by one allocation each", failures);
    is_i64(wrong, 0, "each with TN_EMEMORY and a sentence");
    is_i64(leaks, 0, "and without a leak");
    is_i64(run(0, ud), 0, "all is well afterwards");
    ok(!tn_set_threads(0), "threads as before");
}

#endif
