/* The rows of elementwise.def, for tests that go through all of them: index them by enum tni_ew. */
#ifndef TESTS_ROWS_H
#define TESTS_ROWS_H

enum dom { NUM, SIG, REAL, FLT, FLTR, RE, CMP, TEST, LOG, INT, SHF, SEL };
#define EW1(name, dom, value, deriv, doc)      {#name, dom, 1},
#define EW2(name, dom, value, da, db, doc)     {#name, dom, 2},
#define EW3(name, dom, value, da, db, dc, doc) {#name, dom, 3},
static const struct {
    const char *name;
    enum dom dom;
    int arity;
} rows[] = {
#include "ops/elementwise.def"
};
#undef EW1
#undef EW2
#undef EW3

#endif
