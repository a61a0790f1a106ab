/* What the process runs on, and how many threads kernels may use. */
#include "base/alloc.h"
#include "base/cpu.h"
#include "base/err.h"
#include "base/thread.h"
#include "tenon/tenon.h"

int tn_set_threads(int n) { return tni_set_threads(n); }
int tn_threads(void) { return tni_threads(); }
const char *tn_cpu_name(void) { return tni_cpu_info()->name; }
const char *tn_isa(void) { return tni_isa_name(tni_cpu_info()->isa); }
void tn_free(void *p) { tni_free(p); }
