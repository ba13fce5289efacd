/* Attention on few tokens in single precision, serial: what PyTorch does in many passes.
 *
 * Built by baselines/kernels.py where a C compiler is at hand; elsewhere PyTorch's own operations
 * do the same. B images, T tokens (at most MOST), H heads, d width of
 * a head (a multiple of LANES). Maps of attention are kept key by query, each row padded to a
 * multiple of LANES, so that the softmax runs lane by lane.
 */
#include <math.h>
#include <string.h>

#define LANES 16
#define MOST (2 * LANES)
#define WIDEST (4 * LANES)
#define INLINE static inline __attribute__((always_inline))

typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* exp(x) for x up to 87, 0 below -87: 2^n times the Taylor series on [-ln 2 / 2, ln 2 / 2]. */
INLINE float exp_of(float x) {
    float n = rintf((x > -87.0f ? x : -87.0f) * 1.44269504f);
    float r = x - n * 0.693147182f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    int bits = ((int)n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return x > -87.0f ? p * power : 0.0f;
}

/* Rows [T, d], a stride apart, to columns [d, wide], padded by zeros. */
INLINE void turn(const float *from, long stride, int t, int d, int wide, float *to) {
    memset(to, 0, sizeof(float) * d * wide);
    for (int i = 0; i < t; i++)
        for (int c = 0; c < d; c++) to[c * wide + i] = from[i * stride + c];
}

/* map[j, i] = sum over c of rows[j, c] columns[c, i] */
INLINE void cross(const float *rows, long stride, const float *columns, int t, int d, int wide,
                  float *map) {
    for (int j = 0; j < t; j++) {
        lanes sum[MOST / LANES] = {0};
        for (int c = 0; c < d; c++)
            for (int n = 0; n < wide / LANES; n++)
                sum[n] += rows[j * stride + c] * *(const lanes *)(columns + c * wide + n * LANES);
        for (int n = 0; n < wide / LANES; n++) *(lanes *)(map + j * wide + n * LANES) = sum[n];
    }
}

/* out = scale times the sum over t weights, a step apart, of rows [t, d], a stride apart */
INLINE void blend(const float *weights, int step, const float *rows, long stride, int t, int d,
                  float scale, float *out) {
    lanes sum[WIDEST / LANES] = {0};
    for (int j = 0; j < t; j++)
        for (int n = 0; n < d / LANES; n++)
            sum[n] += weights[j * step] * *(const lanes *)(rows + j * stride + n * LANES);
    for (int n = 0; n < d / LANES; n++) *(lanes *)(out + n * LANES) = sum[n] * scale;
}

/* Softmax over t rows of a map, column by column. */
INLINE void softmax_of(int t, int wide, float *map) {
    float highest[MOST], sum[MOST] = {0};
    memcpy(highest, map, sizeof(float) * wide);
    for (int j = 1; j < t; j++)
        for (int i = 0; i < wide; i++)
            highest[i] = map[j * wide + i] > highest[i] ? map[j * wide + i] : highest[i];
    for (int j = 0; j < t; j++)
        for (int i = 0; i < wide; i++) map[j * wide + i] = exp_of(map[j * wide + i] - highest[i]);
    for (int j = 0; j < t; j++)
        for (int i = 0; i < wide; i++) sum[i] += map[j * wide + i];
    for (int j = 0; j < t; j++)
        for (int i = 0; i < wide; i++) map[j * wide + i] /= sum[i];
}

/* What attention reads and writes: queries [B, T, ..] and keys and values [B, K, ..] with strides
 * from image to image and from row to row, heads side by side. */
struct sides {
    long images, queries, keys, heads, width;
    long query_image, query_row, key_image, key_row;
};

/* Maps hold one row of queries, padded to wide, for each key. */
INLINE void head_forward(const struct sides *s, int d, int wide, const float *q, const float *k,
                         const float *v, const float *bias, const long *steps, float *weights,
                         float *out) {
    float columns[WIDEST * MOST], map[MOST * MOST] = {0}, scale = 1.0f / sqrtf(d);
    int t = s->queries, keys = s->keys;
    turn(q, s->query_row, t, d, wide, columns);
    cross(k, s->key_row, columns, keys, d, wide, map);
    for (int j = 0; j < keys * wide; j++) map[j] *= scale;
    if (bias)
        for (int j = 0; j < keys; j++)
            for (int i = 0; i < t; i++) map[j * wide + i] += bias[i * steps[2] + j * steps[3]];
    softmax_of(keys, wide, map);
    memcpy(weights, map, sizeof(float) * keys * wide);
    for (int i = 0; i < t; i++)
        blend(map + i, wide, v, s->key_row, keys, d, 1.0f, out + i * s->heads * d);
}

/* Gradients, laid out as what they belong to; at the logits [T, K] where wanted. */
INLINE void head_backward(const struct sides *s, int d, int wide, const float *q, const float *k,
                          const float *v, const float *weights, const float *by_out, float *by_q,
                          float *by_k, float *by_v, float *by_logit) {
    float columns[WIDEST * MOST], by[MOST * MOST], mean[MOST] = {0}, scale = 1.0f / sqrtf(d);
    long out_row = s->heads * d;
    int t = s->queries, keys = s->keys;
    turn(by_out, out_row, t, d, wide, columns);
    cross(v, s->key_row, columns, keys, d, wide, by);
    for (int j = 0; j < keys; j++)
        for (int i = 0; i < wide; i++) mean[i] += weights[j * wide + i] * by[j * wide + i];
    for (int j = 0; j < keys; j++)
        for (int i = 0; i < wide; i++)
            by[j * wide + i] = weights[j * wide + i] * (by[j * wide + i] - mean[i]);
    if (by_logit)
        for (int i = 0; i < t; i++)
            for (int j = 0; j < keys; j++) by_logit[i * keys + j] = by[j * wide + i];
    for (int i = 0; i < t; i++)
        blend(by + i, wide, k, s->key_row, keys, d, scale, by_q + i * s->query_row);
    for (int j = 0; j < keys; j++) {
        blend(by + j * wide, 1, q, s->query_row, t, d, scale, by_k + j * s->key_row);
        blend(weights + j * wide, 1, by_out, out_row, t, d, 1.0f, by_v + j * s->key_row);
    }
}

INLINE void all_forward(const struct sides *s, int d, int wide, const float *q, const float *k,
                        const float *v, const float *bias, const long *steps, float *weights,
                        float *out) {
    for (long i = 0; i < s->images; i++)
        for (long h = 0; h < s->heads; h++) {
            long at = i * s->key_image + h * d;
            head_forward(s, d, wide, q + i * s->query_image + h * d, k + at, v + at,
                         bias ? bias + i * steps[0] + h * steps[1] : 0, steps,
                         weights + (i * s->heads + h) * s->keys * wide,
                         out + (i * s->queries * s->heads + h) * d);
        }
}

INLINE void all_backward(const struct sides *s, int d, int wide, const float *q, const float *k,
                         const float *v, const float *weights, const float *by_out, float *by_q,
                         float *by_k, float *by_v, float *by_logit) {
    for (long i = 0; i < s->images; i++)
        for (long h = 0; h < s->heads; h++) {
            long query = i * s->query_image + h * d, key = i * s->key_image + h * d;
            long map = (i * s->heads + h) * s->keys;
            head_backward(s, d, wide, q + query, k + key, v + key, weights + map * wide,
                          by_out + (i * s->queries * s->heads + h) * d, by_q + query, by_k + key,
                          by_v + key, by_logit ? by_logit + map * s->queries : 0);
        }
}

/* Sizes that are known when this is compiled keep sums in registers. */
#define SIZED(call, ...)                                                          \
    if (s->queries <= LANES && s->width == LANES) call(s, LANES, LANES, __VA_ARGS__); \
    else if (s->width == LANES) call(s, LANES, MOST, __VA_ARGS__);                \
    else call(s, s->width, s->queries <= LANES ? LANES : MOST, __VA_ARGS__)

/* Tokens out [B, T, H, d] and weights [B, H, K, padded T]; steps of the bias at [B, H, T, K], in
 * floats. */
void attend_forward(const struct sides *s, const float *q, const float *k, const float *v,
                    const float *bias, const long *steps, float *weights, float *out) {
    SIZED(all_forward, q, k, v, bias, steps, weights, out);
}

/* Gradients at q, k, v and, unless by_logit is null, at the logits [B, H, T, K]. */
void attend_backward(const struct sides *s, const float *q, const float *k, const float *v,
                     const float *weights, const float *by_out, float *by_q, float *by_k,
                     float *by_v, float *by_logit) {
    SIZED(all_backward, q, k, v, weights, by_out, by_q, by_k, by_v, by_logit);
}
