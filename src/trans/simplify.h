/* The graph between a function's arguments and its results, rewritten into an equal smaller one.
 *
 * Every rewrite is exact unless `fold` asks for more: the results have the same bits, except that a
 * NaN may have another sign or payload. What is done, in one pass over the graph in order:
 *   - equal subexpressions become one (hash-consing over primitive, stream, parameters, inputs and
 *     shapes; operands of sums and products in either order; small constants by their bytes);
 *   - what depends on no argument is evaluated once, if its value takes at most 64 KiB or no memory
 *     at all (a view of a constant, one number repeated);
 *   - the rules of simplify_views.c and simplify_rules.c, each documented there;
 *   - custom nodes (stop_gradient, custom_vjp, checkpoint) go: derivatives have been taken. The
 *     marks by which a checkpoint runs again only after its cotangents stay, since without them
 *     the second run would be merged with the first;
 *   - what no result needs is not there any more.
 * With `fold` a second pass over what that left does what gives other bits, within rounding: scales
 * and shifts by constants are gathered, and scales go into the constant weights of the convolution
 * or matrix product before them (simplify_fold.c). It is a pass of its own because only then all
 * constants are known and equal products are one, so that none is scaled that others use too. */
#ifndef TNI_TRANS_SIMPLIFY_H
#define TNI_TRANS_SIMPLIFY_H

#include "core/array.h"

/* out[0..n_out) are results of expressions in in[0..n_in), which are left as they are: tracers (of
 * an open trace), lazy arrays or arrays with values; none of them is looked into or counts as a
 * constant. On success each out[k] is replaced by a handle of the current scope to an equal array
 * (perhaps an in[j], perhaps a constant with its value) made of new nodes; dtype, shape and
 * weakness stay. The old graph is untouched. To be called once derivatives are taken, between
 * tracing and planning:
 *     tni_trace_open(&t, n, x); fn(t.tracer, ...); tni_simplify(n, t.tracer, n_out, out, false);
 *     tni_trace_walk(&t, n_out, out);
 * 0, or a status with out[] as it was. Time and memory are linear in the number of nodes, and of
 * the weights that are scaled. */
int tni_simplify(int n_in, tn_array *const *in, int n_out, tn_array **out, bool fold);

#endif
