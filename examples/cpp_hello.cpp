// The C header as it stands, from C++17: lists, scopes and options look the same. A list made by
// TN_SHAPE, TN_AXES or TN_LIST lives until the end of the statement that it is written in.
#include <cstdio>
#include <stdexcept>
#include <tenon/tenon.h>
#include <vector>

// Attention weights are softmaxed inside; `causal` lets query i see keys up to i.
static tn_array *attend(tn_array *q, tn_array *k, tn_array *v) {
    return tn_fast_scaled_dot_product_attention(q, k, v, 0.5, TN_OPT(tn_sdpa_opt, .causal = true));
}

static double first(tn_array *a) {
    TN_SCOPE { // ends however the block is left, exceptions included
        tn_array *x = tn_slice(a, TN_INTS(0, 0, 0, 0), TN_INTS(1, 1, 1, 1), TN_ALL);
        if (tn_eval(TN_LIST(x))) throw std::runtime_error(tn_error());
        return tn_item_f64(x);
    }
    return 0;
}

int main() try {
    TN_SCOPE {
        std::vector<float> values(2 * 3 * 4);
        for (std::size_t i = 0; i < values.size(); i++) values[i] = float(i) / 8;
        tn_array *q = tn_array_new(values.data(), TN_F32, TN_SHAPE(1, 2, 3, 4));
        tn_array *y = attend(q, tn_flip(q, TN_AXES(2)), q);
        TN_ON (nullptr)
            std::printf("first %.4f, of all %.4f\n", first(y),
                        tn_item_f64(tn_sum(y, TN_ALL, false)));
        tn_array *both[] = {tn_f32(1), tn_f32(2)};
        std::printf("stacked: %lld\n",
                    static_cast<long long>(tn_size(tn_stack(TN_LIST(both[0], both[1]), 0))));
        first(tn_zeros(TN_SHAPE(2), TN_F32)); // throws
    }
} catch (const std::exception &e) {
    std::printf("%s\n", e.what());
}
