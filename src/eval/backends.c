/* The one list that names the backends. */
#include "eval/run.h"

extern const tni_backend tni_cpu_backend;

const tni_backend *const tni_backends[] = {&tni_cpu_backend, NULL};
