#include "train/optim.h"

#include <math.h>
#include <string.h>

struct foray_optim foray_optim_default(double lr) {
  return (struct foray_optim){.lr = lr, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .clip = 1};
}

double foray_optim_rate(const struct foray_optim *o) {
  if (o->step < o->warmup) return o->lr * (o->step + 1) / o->warmup;
  int fall = o->steps - o->warmup;
  double t = fall > 0 ? (double)(o->step - o->warmup) / (double)fall : 0;
  if (t > 1) t = 1;
  switch (o->schedule) {
  case FORAY_LR_CONSTANT: return o->lr;
  case FORAY_LR_LINEAR: return o->lr * (o->floor + (1 - o->floor) * (1 - t));
  case FORAY_LR_COSINE: return o->lr * (o->floor + (1 - o->floor) * 0.5 * (1 + cos(3.141592653589793 * t)));
  }
  return o->lr;
}

struct pass {
  struct foray_optim *o;
  double norm, scale, rate, c1, c2;
  size_t at;
};

static void norm_of(void *arg, struct foray_param *p) {
  struct pass *s = arg;
  const struct foray_optim *o = s->o;
  for (size_t i = p->from; i < p->to; i++) {
    if (o->prox > 0 && o->anchor) /* divided by the scale, because it is multiplied by it below */
      p->g[i] += (float)(o->prox / s->scale * ((double)p->w[i] - (double)o->anchor[s->at + i - p->from]));
    s->norm += (double)p->g[i] * (double)p->g[i];
  }
  s->at += p->to - p->from;
}

static void update(void *arg, struct foray_param *p) {
  const struct pass *s = arg;
  const struct foray_optim *o = s->o;
  const float b1 = (float)o->beta1, b2 = (float)o->beta2, eps = (float)o->eps, lr = (float)s->rate;
  const float keep = 1.0f - (float)(s->rate * o->decay) * p->decay, c1 = (float)s->c1, c2 = (float)s->c2,
              scale = (float)s->scale;
  for (size_t i = p->from; i < p->to; i++) {
    float g = p->g[i] * scale;
    p->m[i] = b1 * p->m[i] + (1 - b1) * g;
    p->v[i] = b2 * p->v[i] + (1 - b2) * g * g;
    p->w[i] = p->w[i] * keep - lr * (p->m[i] * c1) / (sqrtf(p->v[i] * c2) + eps);
  }
  memset(p->g, 0, p->n * sizeof(float));
}

double foray_optim_step(struct foray_optim *o, struct foray_net *n, double grad_scale) {
  struct pass s = {.o = o, .scale = grad_scale, .rate = foray_optim_rate(o)};
  foray_net_params(n, norm_of, &s);
  s.norm = sqrt(s.norm) * grad_scale;
  if (o->clip > 0 && s.norm > o->clip) s.scale *= o->clip / s.norm;
  o->step++;
  s.c1 = 1 / (1 - pow(o->beta1, o->step));
  s.c2 = 1 / (1 - pow(o->beta2, o->step));
  foray_net_params(n, update, &s);
  return s.norm;
}

static void clear(void *arg, struct foray_param *p) {
  (void)arg;
  memset(p->g, 0, p->n * sizeof(float));
}
void foray_optim_clear(struct foray_net *n) { foray_net_params(n, clear, NULL); }

/* ---- parameters as one vector ---- */
enum what { COUNT, GET, SET, GRAD, GET_STATE, SET_STATE };
struct flat {
  enum what what;
  float *out;
  const float *in;
  size_t at;
};
static void flat_one(void *arg, struct foray_param *p) {
  struct flat *f = arg;
  size_t n = p->to - p->from, bytes = n * sizeof(float);
  float *const part[3] = {p->w + p->from, p->m + p->from, p->v + p->from};
  switch (f->what) {
  case COUNT: break;
  case GET: memcpy(f->out + f->at, part[0], bytes); break;
  case SET: memcpy(part[0], f->in + f->at, bytes); break;
  case GRAD: memcpy(f->out + f->at, p->g + p->from, bytes); break;
  case GET_STATE:
    for (int k = 0; k < 3; k++) memcpy(f->out + 3 * f->at + (size_t)k * n, part[k], bytes);
    break;
  case SET_STATE:
    for (int k = 0; k < 3; k++) memcpy(part[k], f->in + 3 * f->at + (size_t)k * n, bytes);
    break;
  }
  f->at += n;
}
static size_t flat(struct foray_net *n, enum what what, float *out, const float *in) {
  struct flat f = {what, out, in, 0};
  foray_net_params(n, flat_one, &f);
  return f.at;
}
size_t foray_params_count(struct foray_net *n) { return flat(n, COUNT, NULL, NULL); }
void foray_params_get(struct foray_net *n, float *out) { flat(n, GET, out, NULL); }
void foray_params_set(struct foray_net *n, const float *in) { flat(n, SET, NULL, in); }
void foray_params_grad(struct foray_net *n, float *out) { flat(n, GRAD, out, NULL); }
void foray_params_get_state(struct foray_net *n, float *out) { flat(n, GET_STATE, out, NULL); }
void foray_params_set_state(struct foray_net *n, const float *in) { flat(n, SET_STATE, NULL, in); }

void foray_net_move_ranks(struct foray_net *n, int from, int to) {
  for (int i = 0; i < n->n_layer; i++)
    for (int j = 0; j < FORAY_LIN_N; j++) {
      struct foray_lin *l = &n->layer[i].lin[j];
      if (!l->rank) continue;
      size_t lo = (size_t)from, hi = (size_t)(to < l->rank ? to : l->rank);
      l->a.from = lo * (size_t)l->n_in, l->a.to = hi * (size_t)l->n_in;
      l->b.from = lo * (size_t)l->n_out, l->b.to = hi * (size_t)l->n_out;
    }
}
