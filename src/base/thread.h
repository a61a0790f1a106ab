/* One pool of worker threads for the process, made on first use. Workers spin
 * about 1 ms for new work before they park: waking a parked thread costs 20-120 us
 * on a virtual machine, answering a spin 0.1-0.5 us (measured), and a decode
 * step has hundreds of fork-joins. */
#ifndef TNI_BASE_THREAD_H
#define TNI_BASE_THREAD_H

#include <stdint.h>

/* Runs fn over [0, n) in chunks of `grain` handed out by a shared counter, on the
 * calling thread and the workers, and returns when all are done. `worker` is in
 * [0, tni_threads()) and unique among those running at the same time. Runs inline
 * (worker 0, one call) when n <= grain, with one thread, or inside another
 * tni_parallel; when another thread holds the pool the caller does all chunks
 * itself. Results must not depend on the split: fix block sizes in the kernel. */
typedef void (*tni_range_fn)(void *ctx, int64_t begin, int64_t end, int worker);
void tni_parallel(int64_t n, int64_t grain, tni_range_fn fn, void *ctx);

int tni_threads(void); /* workers + caller; >= 1. TENON_NUM_THREADS, else cores allowed */
/* 0: back to the default; else 1 to 1024; returns 0 or TN_EVALUE. To be called while no
 * other thread evaluates: kernels size scratch by tni_threads() before tni_parallel. */
int tni_set_threads(int n);
void tni_pool_shutdown(void); /* joins the workers; the next tni_parallel starts them again */

#endif
