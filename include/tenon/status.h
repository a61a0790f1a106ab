/* Status codes shared by every Tenon header, and the library's version. */
#ifndef TENON_STATUS_H
#define TENON_STATUS_H

#if defined(_WIN32)
#define TN_API
#elif defined(__GNUC__)
#define TN_API __attribute__((visibility("default")))
#else
#define TN_API
#endif

#if defined(__GNUC__)
#define TN_MUST_CHECK   __attribute__((warn_unused_result))
#define TN_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define TN_MUST_CHECK
#define TN_PRINTF(f, a)
#endif

/* The one list of codes: X(name, value, text). Codes are only ever added. */
#define TN_STATUS_MAP(X)                                                                           \
    X(TN_OK, 0, "success")                                                                         \
    X(TN_ESHAPE, -1, "shapes do not fit")                                                          \
    X(TN_EAXIS, -2, "axis out of range")                                                           \
    X(TN_EDTYPE, -3, "dtype not supported here")                                                   \
    X(TN_EINDEX, -4, "index out of range")                                                         \
    X(TN_EVALUE, -5, "invalid value")                                                              \
    X(TN_EMEMORY, -6, "out of memory")                                                             \
    X(TN_EFILE, -7, "file cannot be read or written")                                              \
    X(TN_EFORMAT, -8, "file content is malformed or unsupported")                                  \
    X(TN_EDEVICE, -9, "device failed")                                                             \
    X(TN_ESTATE, -10, "not allowed in this state")                                                 \
    X(TN_ECANCELLED, -11, "cancelled")                                                             \
    X(TN_EINTERNAL, -12, "internal error")

enum tn_status {
#define X(name, value, text) name = value,
    TN_STATUS_MAP(X)
#undef X
};

#endif
