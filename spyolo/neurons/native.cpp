// The LTC step on a CPU: membrane, spike and reset of a neuron in one visit to memory. First that of maps, for inference, with the gate
// and what lies between layers; then, from `Span` on, that of dense layers over many steps, forward and backward, for training.
//
// Maps are channels-last: [N, H, W, C], C contiguous. X is the dtype of currents, V that of membranes and arithmetic, S that of spikes.
// Vectors are GCC's and Clang's own, so the same text serves every processor; L lanes, L divides C. AVX-512 has a version of its own of the
// one function where nearly all the time goes: its masks, scalef and rcp14 halve the instructions.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <omp.h>
#include <vector>
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define AVX512 1
#include <immintrin.h>
#endif

struct bf16 { uint16_t bits; };

template <typename T, int L> struct Lanes { typedef T type __attribute__((vector_size(L * sizeof(T)))); };
template <typename T, int L> using Vec = typename Lanes<T, L>::type;
template <typename V> struct Whole;
template <> struct Whole<float> { typedef int32_t type; };
template <> struct Whole<double> { typedef int64_t type; };

template <typename V, int L> static inline Vec<V, L> load(const V* p) {
    Vec<V, L> v;
    memcpy(&v, p, sizeof v);
    return v;
}

template <typename V, int L> static inline Vec<V, L> load(const bf16* p) {
    Vec<uint16_t, L> h;
    memcpy(&h, p, sizeof h);
    return (Vec<float, L>)(__builtin_convertvector(h, Vec<uint32_t, L>) << 16);
}

template <typename V, int L> static inline void store(V* p, Vec<V, L> v) { memcpy(p, &v, sizeof v); }

template <typename V, int L> static inline void store(bf16* p, Vec<float, L> v) {  // to the nearest, ties to even; a NaN of arithmetic stays one
    Vec<uint32_t, L> b = (Vec<uint32_t, L>)v;
    Vec<uint16_t, L> h = __builtin_convertvector((b + 0x7fff + ((b >> 16) & 1)) >> 16, Vec<uint16_t, L>);
    memcpy(p, &h, sizeof h);
}

// spikes from a mask of all ones and zeros: the bits of 1 where it is set
template <typename V, int L, typename M> static inline void store_spikes(V* p, M fired) {
    store<V, L>(p, fired ? Vec<V, L>{} + 1 : Vec<V, L>{});
}

template <typename V, int L, typename M> static inline void store_spikes(bf16* p, M fired) {
    Vec<uint16_t, L> h = __builtin_convertvector(fired & 0x3f80, Vec<uint16_t, L>);
    memcpy(p, &h, sizeof h);
}

template <typename V, int L, typename M> static inline void store_spikes(uint8_t* p, M fired) {
    Vec<uint8_t, L> h = __builtin_convertvector(fired & 1, Vec<uint8_t, L>);
    memcpy(p, &h, sizeof h);
}

// exp by 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2], good to 2 units in the last place; x is kept inside [-87, 87]
template <int L> static inline Vec<float, L> exponential(Vec<float, L> x) {
    typedef Vec<float, L> F;
    typedef Vec<int32_t, L> I;
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
    x = x > 87.0f ? F{} + 87.0f : x;
    x = x < -87.0f ? F{} - 87.0f : x;
    F t = x * 1.44269504f + magic;
    F n = t - magic;
    F r = x - n * 0.693359375f + n * 2.12194440e-4f;
    F p = F{} + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return (F)((I)p + ((I)t << 23));  // the low bits of t hold n
}

template <int L> static inline Vec<double, L> exponential(Vec<double, L> x) {
    for (int i = 0; i < L; i++) x[i] = std::exp(x[i]);
    return x;
}

template <typename V> struct Step {  // what an LTC layer is told
    const void *x, *logit;            // current; the gate's logit, or null
    const V *u, *kernel, *bias;       // membranes (null: at rest); depthwise kernel [9, C] or null; bias [C]
    V* u_after;
    void *s, *s2;                     // spikes, and a second copy of the channels from `from2` on (null: none)
    int64_t stride, stride2, from2;   // elements from pixel to pixel in s and s2
    V threshold;
    int64_t n, h, w, c;
};

template <typename X, typename V, typename S, int L>
inline void fire(const Step<V>& a, int64_t pixel, int64_t c, Vec<V, L> logit) {
    typedef Vec<V, L> F;
    const int64_t at = pixel * a.c + c;
    F x = load<V, L>((const X*)a.x + at);
    F u = a.u ? load<V, L>(a.u + at) : F{};
    F v = u + (x - u) / (1 + exponential<L>(-logit));
    auto fired = v > a.threshold;
    store<V, L>(a.u_after + at, fired ? F{} : v);
    store_spikes<V, L>((S*)a.s + pixel * a.stride + c, fired);
    if (a.s2 && c >= a.from2) store_spikes<V, L>((S*)a.s2 + pixel * a.stride2 + c - a.from2, fired);
}

#ifdef AVX512
static inline void spikes16(float* p, __mmask16 fired) { _mm512_storeu_ps(p, _mm512_maskz_mov_ps(fired, _mm512_set1_ps(1))); }
static inline void spikes16(bf16* p, __mmask16 fired) { _mm256_storeu_si256((__m256i*)p, _mm256_maskz_set1_epi16(fired, 0x3f80)); }
static inline void spikes16(uint8_t* p, __mmask16 fired) { _mm_storeu_si128((__m128i*)p, _mm_maskz_set1_epi8(fired, 1)); }

// 1 / (1 + 2^-t) with t = logit / ln 2: 2^f by a polynomial, the reciprocal by rcp14 and a step of Newton's; a unit or two in the last place
static inline __m512 sigmoid16(__m512 logit) {
    __m512 t = _mm512_mul_ps(logit, _mm512_set1_ps(-1.44269504f));
    t = _mm512_max_ps(_mm512_min_ps(t, _mm512_set1_ps(126)), _mm512_set1_ps(-126));
    const __m512 n = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), f = _mm512_sub_ps(t, n);
    __m512 p = _mm512_set1_ps(1.5353362e-4f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.3398874e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6184374e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5503325e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022648e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314720e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1));
    const __m512 d = _mm512_add_ps(_mm512_scalef_ps(p, n), _mm512_set1_ps(1)), r = _mm512_rcp14_ps(d);
    return _mm512_mul_ps(r, _mm512_fnmadd_ps(d, r, _mm512_set1_ps(2)));
}

template <typename X, typename S> static inline void fire16(const Step<float>& a, int64_t pixel, int64_t c, Vec<float, 16> logit) {
    const int64_t at = pixel * a.c + c;
    const __m512 x = (__m512)load<float, 16>((const X*)a.x + at);
    const __m512 u = a.u ? _mm512_loadu_ps(a.u + at) : _mm512_setzero_ps();
    const __m512 v = _mm512_fmadd_ps(_mm512_sub_ps(x, u), sigmoid16((__m512)logit), u);
    const __mmask16 fired = _mm512_cmp_ps_mask(v, _mm512_set1_ps(a.threshold), _CMP_GT_OQ);
    _mm512_storeu_ps(a.u_after + at, _mm512_mask_mov_ps(v, fired, _mm512_setzero_ps()));
    spikes16((S*)a.s + pixel * a.stride + c, fired);
    if (a.s2 && c >= a.from2) spikes16((S*)a.s2 + pixel * a.stride2 + c - a.from2, fired);
}

template <> inline void fire<bf16, float, bf16, 16>(const Step<float>& a, int64_t pixel, int64_t c, Vec<float, 16> logit) {
    fire16<bf16, bf16>(a, pixel, c, logit);
}
template <> inline void fire<bf16, float, uint8_t, 16>(const Step<float>& a, int64_t pixel, int64_t c, Vec<float, 16> logit) {
    fire16<bf16, uint8_t>(a, pixel, c, logit);
}
template <> inline void fire<float, float, float, 16>(const Step<float>& a, int64_t pixel, int64_t c, Vec<float, 16> logit) {
    fire16<float, float>(a, pixel, c, logit);
}
template <> inline void fire<float, float, uint8_t, 16>(const Step<float>& a, int64_t pixel, int64_t c, Vec<float, 16> logit) {
    fire16<float, uint8_t>(a, pixel, c, logit);
}
#endif

// one row of x + u with a zero pixel at either end; zeros where y lies outside
template <typename X, typename V, int L> static void sum_row(const Step<V>& a, int64_t n, int64_t y, V* row) {
    const int64_t length = a.w * a.c;
    if (y < 0 || y >= a.h) {
        memset(row, 0, (length + 2 * a.c) * sizeof(V));
        return;
    }
    memset(row, 0, a.c * sizeof(V));
    memset(row + a.c + length, 0, a.c * sizeof(V));
    const int64_t from = (n * a.h + y) * length;
    for (int64_t i = 0; i < length; i += L) {
        Vec<V, L> g = load<V, L>((const X*)a.x + from + i);
        if (a.u) g += load<V, L>(a.u + from + i);
        store<V, L>(row + a.c + i, g);
    }
}

template <typename X, typename V, typename S, int L> static void depthwise_rows(const Step<V>& a, int64_t first, int64_t last) {
    typedef Vec<V, L> F;
    const int64_t width = (a.w + 2) * a.c;
    std::vector<V> memory(3 * width);
    int64_t have = -9, image = -1;  // the last row summed, and of which image
    for (int64_t r = first; r < last; r++) {
        const int64_t n = r / a.h, y = r % a.h;
        if (n != image) have = y - 2, image = n;
        for (; have < y + 1; have++) sum_row<X, V, L>(a, n, have + 1, &memory[(have + 1 + 3) % 3 * width]);
        const V* above[3];
        for (int k = 0; k < 3; k++) above[k] = &memory[(y - 1 + k + 3) % 3 * width];
        for (int64_t c = 0; c < a.c; c += L) {
            F k[9], bias = load<V, L>(a.bias + c);
            for (int i = 0; i < 9; i++) k[i] = load<V, L>(a.kernel + i * a.c + c);
            for (int64_t x = 0; x < a.w; x++) {
                F sum[3] = {bias, F{}, F{}};  // three short chains of additions, not one long
                for (int i = 0; i < 9; i++) sum[i % 3] += k[i] * load<V, L>(above[i / 3] + (x + i % 3) * a.c + c);
                fire<X, V, S, L>(a, r * a.w + x, c, sum[0] + (sum[1] + sum[2]));
            }
        }
    }
}

template <typename X, typename V, typename S, int L> static void pointwise_rows(const Step<V>& a, int64_t first, int64_t last) {
    for (int64_t pixel = first * a.w; pixel < last * a.w; pixel++)
        for (int64_t c = 0; c < a.c; c += L) {
            Vec<V, L> logit = load<V, L>(a.bias + c);
            if (a.logit) logit += load<V, L>((const X*)a.logit + pixel * a.c + c);
            fire<X, V, S, L>(a, pixel, c, logit);
        }
}

template <typename X, typename V, typename S, int L> static void all_rows(const Step<V>& a, int threads) {
    const int64_t rows = a.n * a.h;
#pragma omp parallel num_threads(threads)
    {
        const int64_t i = omp_get_thread_num(), of = omp_get_num_threads(), first = rows * i / of, last = rows * (i + 1) / of;
        if (a.kernel) depthwise_rows<X, V, S, L>(a, first, last);
        else pointwise_rows<X, V, S, L>(a, first, last);
    }
}

template <typename X, typename V, typename S> static void any_lanes(const Step<V>& a, int threads) {
    constexpr int most = 64 / sizeof(V);
    const bool aligned = a.c % most == 0 && a.from2 % most == 0;
    if (aligned) all_rows<X, V, S, most>(a, threads);
    else all_rows<X, V, S, 4>(a, threads);
}

// x + u in the dtype of x; count is a multiple of 4
template <typename X, typename V, int L> static void add(const X* x, const V* u, X* out, int64_t count, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count / L; i++) store<V, L>(out + i * L, load<V, L>(x + i * L) + load<V, L>(u + i * L));
    for (int64_t i = count / L * L; i < count; i += 4) store<V, 4>(out + i, load<V, 4>(x + i) + load<V, 4>(u + i));
}

#define STEP(NAME, X, V, S)                                                                                                            \
    extern "C" void NAME(const void* x, const void* logit, const V* u, const V* kernel, const V* bias, V* u_after, void* s, void* s2,  \
                         int64_t stride, int64_t stride2, int64_t from2, double threshold, int64_t n, int64_t h, int64_t w, int64_t c, \
                         int threads) {                                                                                                \
        Step<V> a = {x, logit, u, kernel, bias, u_after, s, s2, stride, stride2, from2, (V)threshold, n, h, w, c};                     \
        any_lanes<X, V, S>(a, threads);                                                                                                \
    }
STEP(ltc_bf16_bf16, bf16, float, bf16)
STEP(ltc_bf16_u8, bf16, float, uint8_t)
STEP(ltc_f32_f32, float, float, float)
STEP(ltc_f32_u8, float, float, uint8_t)
STEP(ltc_f64_f64, double, double, double)

extern "C" void add_bf16(const bf16* x, const float* u, bf16* out, int64_t count, int threads) {
    add<bf16, float, 16>(x, u, out, count, threads);
}

// 2x2 maxima of two maps of spikes, joined: a pooled spike is an OR of bits, whatever the dtype. Sizes and strides in bytes.
extern "C" void pool(const uint8_t* a, int64_t stride_a, int64_t size_a, const uint8_t* b, int64_t stride_b, int64_t size_b, uint8_t* out,
                     int64_t n, int64_t h, int64_t w, int threads) {
    const int64_t rows = n * (h / 2), half = w / 2, size = size_a + size_b;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const int64_t y = r / (h / 2) * h + r % (h / 2) * 2;
        for (int64_t x = 0; x < half; x++) {
            uint8_t* to = out + (r * half + x) * size;
            for (int k = 0; k < 2; k++) {
                const int64_t stride = k ? stride_b : stride_a, bytes = k ? size_b : size_a;
                const uint8_t* p = (k ? b : a) + (y * w + 2 * x) * stride;
                const uint8_t* q = p + w * stride;
                for (int64_t i = 0; i < bytes; i++) to[i] = p[i] | p[i + stride] | q[i] | q[i + stride];
                to += bytes;
            }
        }
    }
}

// -- spans: span.py has the equations and calls a matrix product before or after each of these ------------------------------------------

template <typename X, typename V> struct Span {  // field by field the same as native.Span
    X *both, *logit, *spikes;              // [T, B, 2n] (c_t, then u_{t-1}), [B, n], [T + 1, B, n]
    V *u, *tau;                            // [T + 1, B, n], [T, B, n]
    X *on_c, *on_l, *on_s, *through;       // gradients: [T, B, n] twice, [B, n], [B, 2n]
    V *on_u, *on_v;                        // [B, n]
    const X* from_s;                       // [T, B, n], of all spikes and membranes, or null
    const V *from_u, *psi;                 // psi: the surrogate of the steps from `first` on; null: multi_gaussian, made here
    double threshold;
    int64_t steps, batch, n, first, detach_reset, recurrent, threads;
};

template <typename V, int L> static inline Vec<V, L> multi_gaussian(Vec<V, L> v) {  // surrogate.py's, with its own constants
    const V gamma = 0.5, sigma = 0.3, h = 0.15, wide = 6 * sigma, root = 2.5066282746310002;
    const Vec<V, L> left = v - sigma, right = v + sigma;
    const V thin = -1 / (2 * sigma * sigma), flat = -1 / (2 * wide * wide);
    return gamma * (1 + h) / (sigma * root) * exponential<L>(v * v * thin)
        - gamma * h / (wide * root) * (exponential<L>(left * left * flat) + exponential<L>(right * right * flat));
}

template <typename X, typename V, int L> static inline void forward_lanes(const Span<X, V>& a, int64_t t, int64_t row, int64_t i) {
    typedef Vec<V, L> F;
    const int64_t line = t * a.batch + row, at = line * a.n + i, after = at + a.batch * a.n;
    F u = load<V, L>(a.u + at), c = load<V, L>(a.both + 2 * line * a.n + i);
    F tau = 1 / (1 + exponential<L>(-load<V, L>(a.logit + row * a.n + i)));
    F v = u + tau * (c - u);
    auto fired = v > (V)a.threshold;
    F kept = fired ? v - v : v;  // infinity minus itself: what overflows shall show
    store<V, L>(a.tau + at, tau);
    store<V, L>(a.u + after, kept);
    store_spikes<V, L>(a.spikes + after, fired);
    if (t + 1 < a.steps) store<V, L>(a.both + 2 * (line + a.batch) * a.n + a.n + i, kept);
}

template <typename X, typename V, int L> static inline void back_lanes(const Span<X, V>& a, int64_t t, int64_t row, int64_t i) {
    typedef Vec<V, L> F;
    const int64_t line = t * a.batch + row, at = line * a.n + i, here = row * a.n + i;
    F u = load<V, L>(a.u + at), tau = load<V, L>(a.tau + at), difference = load<V, L>(a.both + 2 * line * a.n + i) - u;
    F v = u + tau * difference, psi;
    if (a.threshold > 1e30) psi = F{};  // a readout: it never fires
    else if (a.psi) psi = load<V, L>(a.psi + at - a.first * a.batch * a.n);
    else psi = multi_gaussian<V, L>(v - (V)a.threshold);
    F reset = 1 - load<V, L>(a.spikes + at + a.batch * a.n);
    if (!a.detach_reset) reset -= v * psi;
    F on_s = load<V, L>(a.on_s + here), on_u = load<V, L>(a.on_u + here);
    if (a.from_s) on_s += load<V, L>(a.from_s + at);
    if (a.from_u) on_u += load<V, L>(a.from_u + at);
    F on_v = on_s * psi + on_u * reset;
    store<V, L>(a.on_v + here, on_v);
    store<V, L>(a.on_l + at, on_v * difference * tau * (1 - tau));
    if (!a.recurrent) store<V, L>(a.on_s + here, F{});
}

template <typename X, typename V, int L> static inline void through_lanes(const Span<X, V>& a, int64_t t, int64_t row, int64_t i) {
    typedef Vec<V, L> F;
    const int64_t at = (t * a.batch + row) * a.n + i, here = row * a.n + i, wide = 2 * row * a.n + i;
    F on_v = load<V, L>(a.on_v + here), tau = load<V, L>(a.tau + at);
    store<V, L>(a.on_c + at, load<V, L>(a.through + wide) + on_v * tau);
    store<V, L>(a.on_u + here, load<V, L>(a.through + wide + a.n) + on_v * (1 - tau));
}

enum { FORWARD, BACK, THROUGH };

template <int WHICH, typename X, typename V, int L> static inline void lanes(const Span<X, V>& a, int64_t t, int64_t row, int64_t i) {
    if (WHICH == FORWARD) forward_lanes<X, V, L>(a, t, row, i);
    else if (WHICH == BACK) back_lanes<X, V, L>(a, t, row, i);
    else through_lanes<X, V, L>(a, t, row, i);
}

template <int WHICH, typename X, typename V> static void neurons(const Span<X, V>& a, int64_t t) {
    constexpr int most = 32 / sizeof(V);
#pragma omp parallel for num_threads(a.threads) if (a.batch * a.n > 32768)
    for (int64_t row = 0; row < a.batch; row++) {
        int64_t i = 0;
        for (; i + most <= a.n; i += most) lanes<WHICH, X, V, most>(a, t, row, i);
        for (; i < a.n; i++) lanes<WHICH, X, V, 1>(a, t, row, i);
    }
}

#define SPAN(NAME, X, V)                                                                                                \
    extern "C" void NAME##_forward(const Span<X, V>* a, int64_t t) { neurons<FORWARD, X, V>(*a, t); }                   \
    extern "C" void NAME##_back(const Span<X, V>* a, int64_t t) { neurons<BACK, X, V>(*a, t); }                         \
    extern "C" void NAME##_through(const Span<X, V>* a, int64_t t) { neurons<THROUGH, X, V>(*a, t); }
SPAN(span_bf16, bf16, float)
SPAN(span_f32, float, float)
SPAN(span_f64, double, double)
