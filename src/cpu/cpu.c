/* The CPU backend's table: a kernel for every row of prims.def, or an explicit NULL: rows that
 * evaluation runs itself (views, moves, fused element-wise nodes). */
#include "core/backend.h"
#include "cpu/cpu_conv.h"
#include "cpu/cpu_gather.h"
#include "cpu/cpu_matmul.h"
#include "cpu/cpu_misc.h"
#include "cpu/cpu_nn.h"
#include "cpu/cpu_pool.h"
#include "cpu/cpu_program.h"
#include "cpu/cpu_quant.h"
#include "cpu/cpu_sdpa.h"
#include "cpu/cpu_sort.h"
#include "ops/ids.h"

#define tni_cpu_reshape      NULL
#define tni_cpu_transpose    NULL
#define tni_cpu_slice        NULL
#define tni_cpu_broadcast_to NULL
#define tni_cpu_custom       NULL
#define tni_cpu_view         NULL
#define tni_cpu_astype       NULL
#define tni_cpu_contiguous   NULL
#define tni_cpu_concatenate  NULL
#define tni_cpu_slice_update NULL

static const tni_kernel cpu_kernels[TNI_OP_COUNT] = {
#define PRIM(name, kind, params, flags, doc) [TNI_OP_##name] = tni_cpu_##name,
#include "ops/prims.def"
#undef PRIM
};

extern const tni_backend tni_cpu_backend;
const tni_backend tni_cpu_backend = {"cpu", cpu_kernels, tni_cpu_run};
