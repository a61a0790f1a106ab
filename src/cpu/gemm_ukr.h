/* The micro-kernel, for f32 and f64: include with
 *   U_T, U_V, U_VN          element, vector, lanes
 *   U_SET U_LOAD U_STORE U_FMA    words on U_V (addition is +)
 *   U_M, U_MASK(n), U_LOADM(p, m), U_STOREM(p, v, m)   the first n lanes only
 *   U_MR, U_NV              largest tile: U_MR rows by U_NV vectors
 *   U_NAME(x)               pastes a suffix
 * All accumulators live in registers: U_MR * U_NV of them, U_NV vectors of b and one of a.
 * Rows are addressed from four pointers, so that strided and packed A share the code. */

#if defined(__clang__)
#define U_UNROLL _Pragma("clang loop unroll(full)")
#else
#define U_UNROLL _Pragma("GCC unroll 16")
#endif

typedef void (*U_NAME(u_fn))(int64_t k, const U_T *a, int64_t rsa, int64_t csa, const U_T *b,
                             int64_t ldb, U_T *c, int64_t ldc, U_M mask, int add);

/* rows by nv vectors, of which the last is partial when `part`. */
V_FN void U_NAME(u_body)(const int rows, const int nv, const bool part, int64_t k, const U_T *a,
                         int64_t rsa, int64_t csa, const U_T *b, int64_t ldb, U_T *c, int64_t ldc,
                         U_M mask, int add) {
    U_V acc[U_MR][U_NV], bv[U_NV];
    const U_T *p[(U_MR + 3) / 4];
    U_UNROLL
    for (int i = 0; i < rows; i++) {
        __builtin_prefetch(c + i * ldc, 1);
        U_UNROLL
        for (int j = 0; j < nv; j++) acc[i][j] = U_SET(0);
    }
    U_UNROLL
    for (int i = 0; i < (rows + 3) / 4; i++) p[i] = a + 4 * i * rsa;
    for (; k > 0; k--) {
        U_UNROLL
        for (int j = 0; j < nv; j++)
            bv[j] = part && j == nv - 1 ? U_LOADM(b + j * U_VN, mask) : U_LOAD(b + j * U_VN);
        b += ldb;
        U_UNROLL
        for (int i = 0; i < rows; i++) {
            U_V x = U_SET(p[i / 4][(i % 4) * rsa]);
            U_UNROLL
            for (int j = 0; j < nv; j++) acc[i][j] = U_FMA(x, bv[j], acc[i][j]);
        }
        U_UNROLL
        for (int i = 0; i < (rows + 3) / 4; i++) p[i] += csa;
    }
    U_UNROLL
    for (int i = 0; i < rows; i++) {
        U_UNROLL
        for (int j = 0; j < nv; j++) {
            U_T *q = c + i * ldc + j * U_VN;
            U_V sum = acc[i][j];
            if (part && j == nv - 1) {
                if (add) sum = U_LOADM(q, mask) + sum;
                U_STOREM(q, sum, mask);
            } else {
                if (add) sum = U_LOAD(q) + sum;
                U_STORE(q, sum);
            }
        }
    }
}

#define U_ONE(r, v, part)                                                                          \
    static void U_NAME(u_##r##_##v##_##part)(int64_t k, const U_T *a, int64_t rsa, int64_t csa,    \
                                             const U_T *b, int64_t ldb, U_T *c, int64_t ldc,       \
                                             U_M mask, int add) {                                  \
        U_NAME(u_body)(r, v, part, k, a, rsa, csa, b, ldb, c, ldc, mask, add);                     \
    }
#define U_PUT(r, v, part) U_NAME(u_##r##_##v##_##part),

/* Per number of rows: one to U_NV vectors with the last one partial, then U_NV whole ones. */
#if U_NV == 2
#define U_ROW(X, r) X(r, 1, 1) X(r, 2, 1) X(r, 2, 0)
#elif U_NV == 3
#define U_ROW(X, r) X(r, 1, 1) X(r, 2, 1) X(r, 3, 1) X(r, 3, 0)
#else
#define U_ROW(X, r) X(r, 1, 1) X(r, 2, 1) X(r, 3, 1) X(r, 4, 1) X(r, 4, 0)
#endif
#define U_ROWS4(X) U_ROW(X, 1) U_ROW(X, 2) U_ROW(X, 3) U_ROW(X, 4)
#define U_ROWS6(X) U_ROWS4(X) U_ROW(X, 5) U_ROW(X, 6)
#define U_ROWS8(X) U_ROWS6(X) U_ROW(X, 7) U_ROW(X, 8)
#define U_ROWS14(X)                                                                                \
    U_ROWS8(X) U_ROW(X, 9) U_ROW(X, 10) U_ROW(X, 11) U_ROW(X, 12) U_ROW(X, 13) U_ROW(X, 14)
#if U_MR == 4
#define U_ROWS(X) U_ROWS4(X)
#elif U_MR == 6
#define U_ROWS(X) U_ROWS6(X)
#elif U_MR == 8
#define U_ROWS(X) U_ROWS8(X)
#else
#define U_ROWS(X) U_ROWS14(X)
#endif

U_ROWS(U_ONE)
static const U_NAME(u_fn) U_NAME(u_all)[U_MR * (U_NV + 1)] = {U_ROWS(U_PUT)};

static void U_NAME(u_tile)(int64_t k, const void *a, int64_t rsa, int64_t csa, const void *b,
                           int64_t ldb, void *c, int64_t ldc, int m, int n, int add) {
    int v = n == U_NV * U_VN ? U_NV : (n - 1) / U_VN, left = n - (n - 1) / U_VN * U_VN;
    U_NAME(u_all)[(m - 1) * (U_NV + 1) + v](k, a, rsa, csa, b, ldb, c, ldc, U_MASK(left), add);
}

#undef U_ONE
#undef U_PUT
#undef U_ROW
#undef U_ROWS4
#undef U_ROWS6
#undef U_ROWS8
#undef U_ROWS14
#undef U_ROWS
#undef U_UNROLL
