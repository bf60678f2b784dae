/* The tree part of search_closed as a plain C loop over the same arrays: PUCT, whole searches, no abstraction.
   search_speed compiles it with cc -O3 -march=native -ffast-math and compares: what a careful C programmer would get. */
#include <math.h>
#include <stdint.h>

typedef struct {
    const int32_t *first_child;
    const uint16_t *child_count;
    const uint8_t *terminal;
    const float *reward, *prior_logits, *value;
} World;

typedef struct {  /* nodes [N], slots [N, W] */
    float *prior;
    int32_t *visits;
    float *q;
    int32_t *child;
    int32_t *width, *seen;
    float *node_value, *node_reward;
    uint8_t *status;
    int32_t *where;
} Tree;

static void open_node(const World *w, Tree *t, int n, int64_t flat, int W) {
    int64_t first = w->first_child[flat];
    int width = w->child_count[flat];
    float *restrict prior = t->prior + (int64_t)n * W;
    const float *restrict logits = w->prior_logits + first;
    float high = -INFINITY, mass = 0;
    for (int k = 0; k < width; k++) high = logits[k] > high ? logits[k] : high;
    for (int k = 0; k < width; k++) { prior[k] = expf(logits[k] - high); mass += prior[k]; }
    float scale = 1.0f / mass;
    for (int k = 0; k < width; k++) {
        prior[k] *= scale;
        t->visits[(int64_t)n * W + k] = 0;
        t->q[(int64_t)n * W + k] = 0;
        t->child[(int64_t)n * W + k] = -1;
    }
    t->width[n] = width;
}

static int attach(const World *w, Tree *t, int *size, int64_t flat, int W) {
    int n = (*size)++;
    int ends = w->terminal[flat];
    t->where[n] = (int32_t)flat;
    t->seen[n] = 1;
    t->node_value[n] = ends ? 0.0f : w->value[flat];
    t->node_reward[n] = w->reward[flat];
    t->status[n] = (uint8_t)(ends ? 3 : 0);
    if (!ends) open_node(w, t, n, flat, W);
    return n;
}

static int puct(const Tree *t, int n, int W, const float *explore, float *restrict scores) {
    const float *restrict prior = t->prior + (int64_t)n * W, *restrict q = t->q + (int64_t)n * W;
    const int32_t *restrict visits = t->visits + (int64_t)n * W;
    int width = t->width[n];
    float low = t->node_value[n], high = low;
    for (int k = 0; k < width; k++) {
        float known = visits[k] > 0 ? q[k] : low;
        low = known < low ? known : low;
        known = visits[k] > 0 ? q[k] : high;
        high = known > high ? known : high;
    }
    float range = high - low;
    float scale = 1.0f / (range > 1e-8f ? range : 1e-8f), e = explore[t->seen[n]], best = -3e38f;
    for (int k = 0; k < width; k++) {
        float known = visits[k] > 0 ? (q[k] - low) * scale : 0.0f;
        scores[k] = known + e * prior[k] / (float)(visits[k] + 1);
        best = scores[k] > best ? scores[k] : best;
    }
    for (int k = 0; k < width; k++)
        if (scores[k] == best) return k;
    return 0;
}

void search(const World *w, Tree *t, const int32_t *roots, int B, int S, int W, float discount, const float *explore,
            float *scores, int32_t *path_node, int32_t *path_slot, int32_t *visits_out) {
    for (int b = 0; b < B; b++) {
        int size = 0;
        attach(w, t, &size, roots[b], W);
        for (int s = 0; s < S; s++) {
            int node = 0, depth = 0, slot, child;
            for (;;) {
                slot = puct(t, node, W, explore, scores);
                path_node[depth] = node;
                path_slot[depth++] = slot;
                child = t->child[(int64_t)node * W + slot];
                if (child < 0 || t->status[child]) break;
                node = child;
            }
            if (child < 0) {
                child = attach(w, t, &size, (int64_t)w->first_child[t->where[node]] + slot, W);
                t->child[(int64_t)node * W + slot] = child;
            }
            float value = t->node_value[child];
            for (int d = depth - 1; d >= 0; d--) {
                int n = path_node[d];
                int64_t at = (int64_t)n * W + path_slot[d];
                int c = t->child[at];
                value = t->node_reward[c] + discount * value;
                t->visits[at]++;
                t->q[at] = t->node_reward[c] + discount * t->node_value[c];
                float count = (float)t->seen[n]++;
                t->node_value[n] = (t->node_value[n] * count + value) / (count + 1.0f);
            }
        }
        for (int k = 0; k < W; k++) visits_out[(int64_t)b * W + k] = k < t->width[0] ? t->visits[k] : 0;
    }
}
