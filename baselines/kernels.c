/* Small kernels of the transformer in single precision, serial: what PyTorch does in many passes.
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

/* Phi(x) by Abramowitz and Stegun 7.1.26, within 1e-7, from bell = exp(-x^2 / 2). */
INLINE float phi_of(float x, float bell) {
    float t = 1.0f / (1.0f + 0.2316418890f * fabsf(x));
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    float tail = 0.5f * p * t * bell;
    return x > 0 ? 1.0f - tail : tail;
}

/* x Phi(x) and its slope Phi(x) + x phi(x); no slope where that is null. */
void gelu(long count, const float *restrict x, float *restrict y, float *restrict slope) {
    if (!slope) {
        for (long i = 0; i < count; i++) y[i] = x[i] * phi_of(x[i], exp_of(-0.5f * x[i] * x[i]));
        return;
    }
    for (long i = 0; i < count; i++) {
        float bell = exp_of(-0.5f * x[i] * x[i]), phi = phi_of(x[i], bell);
        y[i] = x[i] * phi;
        slope[i] = phi + x[i] * bell * 0.398942280f;
    }
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

/* One head of one image: q, and k and v one width on, rows 3 widths apart. */
INLINE void head_forward(const float *q, long width, int t, int d, int wide, const float *bias,
                         const long *steps, float *weights, float *out) {
    const float *k = q + width, *v = q + 2 * width;
    float queries[WIDEST * MOST], map[MOST * MOST] = {0}, scale = 1.0f / sqrtf(d);
    turn(q, 3 * width, t, d, wide, queries);
    cross(k, 3 * width, queries, t, d, wide, map);
    for (int j = 0; j < t * wide; j++) map[j] *= scale;
    if (bias)
        for (int j = 0; j < t; j++)
            for (int i = 0; i < t; i++) map[j * wide + i] += bias[i * steps[2] + j * steps[3]];
    softmax_of(t, wide, map);
    memcpy(weights, map, sizeof(float) * t * wide);
    for (int i = 0; i < t; i++)
        blend(map + i, wide, v, 3 * width, t, d, 1.0f, out + i * width);
}

/* Its gradients: at q, k and v, laid out as they are, and at the logits [T, T] where wanted. */
INLINE void head_backward(const float *q, long width, int t, int d, int wide, const float *weights,
                          const float *by_out, float *by_q, float *by_logit) {
    const float *k = q + width, *v = q + 2 * width;
    float columns[WIDEST * MOST], by[MOST * MOST], mean[MOST] = {0}, scale = 1.0f / sqrtf(d);
    turn(by_out, width, t, d, wide, columns);
    cross(v, 3 * width, columns, t, d, wide, by);
    for (int j = 0; j < t; j++)
        for (int i = 0; i < wide; i++) mean[i] += weights[j * wide + i] * by[j * wide + i];
    for (int j = 0; j < t; j++)
        for (int i = 0; i < wide; i++)
            by[j * wide + i] = weights[j * wide + i] * (by[j * wide + i] - mean[i]);
    if (by_logit)
        for (int i = 0; i < t; i++)
            for (int j = 0; j < t; j++) by_logit[i * t + j] = by[j * wide + i];
    for (int i = 0; i < t; i++) {
        float *at = by_q + i * 3 * width;
        blend(by + i, wide, k, 3 * width, t, d, scale, at);
        blend(by + i * wide, 1, q, 3 * width, t, d, scale, at + width);
        blend(weights + i * wide, 1, by_out, width, t, d, 1.0f, at + 2 * width);
    }
}

INLINE void all_forward(long b, int t, int heads, int d, int wide, const float *qkv,
                        const float *bias, const long *steps, float *weights, float *out) {
    long width = heads * d;
    for (long i = 0; i < b; i++)
        for (int h = 0; h < heads; h++)
            head_forward(qkv + i * t * 3 * width + h * d, width, t, d, wide,
                         bias ? bias + i * steps[0] + h * steps[1] : 0, steps,
                         weights + (i * heads + h) * t * wide, out + i * t * width + h * d);
}

INLINE void all_backward(long b, int t, int heads, int d, int wide, const float *qkv,
                         const float *weights, const float *by_out, float *by_qkv,
                         float *by_logit) {
    long width = heads * d;
    for (long i = 0; i < b; i++)
        for (int h = 0; h < heads; h++) {
            long head = i * t * 3 * width + h * d, map = i * heads + h;
            head_backward(qkv + head, width, t, d, wide, weights + map * t * wide,
                          by_out + i * t * width + h * d, by_qkv + head,
                          by_logit ? by_logit + map * t * t : 0);
        }
}

/* Sizes that are known when this is compiled keep sums in registers. */
#define SIZED(call, ...)                                             \
    if (t <= LANES && d == LANES) call(b, t, heads, LANES, LANES, __VA_ARGS__); \
    else if (d == LANES) call(b, t, heads, LANES, MOST, __VA_ARGS__); \
    else call(b, t, heads, d, t <= LANES ? LANES : MOST, __VA_ARGS__)

/* qkv [B, T, 3, H, d] to out [B, T, H, d] and weights [B, H, T, padded T]; steps of the bias at
 * [B, H, T, T] in floats. */
void attend_forward(long b, int t, int heads, int d, const float *qkv, const float *bias,
                    const long *steps, float *weights, float *out) {
    SIZED(all_forward, qkv, bias, steps, weights, out);
}

/* Gradients at qkv and, unless by_logit is null, at the logits [B, H, T, T]. */
void attend_backward(long b, int t, int heads, int d, const float *qkv, const float *weights,
                     const float *by_out, float *by_qkv, float *by_logit) {
    SIZED(all_backward, qkv, weights, by_out, by_qkv, by_logit);
}
