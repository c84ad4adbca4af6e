/* cotune/fed.h - a co-tuning run in one process: a cloud model, a proxy cut from it, K devices with models of
 * their own, data, rounds, and what crosses the wire. Algorithms (algo_*.c) are made of the steps declared
 * here.
 *
 * One network per distinct model file is in memory; a device is a set of adapter weights and optimiser
 * moments that is put into it for its turn. Everything random follows from (seed, round, device), so a run
 * gives the same bits on any number of threads, and one that was killed goes on from its last complete round.
 * Thread rule: one caller. */
#ifndef FORAY_COTUNE_FED_H
#define FORAY_COTUNE_FED_H

#include "cotune/config.h"
#include "cotune/learner.h"
#include "cotune/wire.h"
#include <signal.h>

/* A set of weights that lives outside of a network: the moved part with its moments, 3 x n floats. */
struct foray_slot {
  float *state;
  size_t n;
  int step;
};
/* Where one is in a shuffled list of examples. */
struct foray_cursor {
  int at;
  uint32_t epoch;
};

struct foray_fed_model {
  struct foray_model *m;
  struct foray_learner *l;
  struct foray_enc *train, *pub, *dev;       /* by example */
  struct foray_align *from_cloud, *to_cloud; /* cloud -> this model's tokens and back */
};

struct foray_device {
  int model, domain;
  struct foray_share share;
  struct foray_slot own;  /* LoRA of the device's model */
  struct foray_slot priv; /* private ranks of the proxy; never leaves the device */
  struct foray_slot copy; /* shared ranks of the proxy while it works */
  struct foray_cursor cursor;
  uint64_t tokens; /* trained on, for the report */
};

struct foray_fed {
  const struct foray_fed_config *c;
  const struct foray_algo *algo;
  struct foray_mm *gemm; /* borrowed */
  const volatile sig_atomic_t *stop;
  FILE *log, *json;
  struct foray_dataset train, pub, dev;
  struct foray_fed_model *model; /* of devices, then the cloud, then the proxy (if the algorithm has one) */
  int n_models, cloud, proxy;    /* places; proxy = -1 without */
  struct foray_device *device;
  int n_devices;
  struct foray_slot cloud_slot, pi; /* cloud LoRA; shared ranks of the proxy as of this round */
  struct foray_slot private_start;
  struct foray_cursor pub_cursor;
  struct foray_wire wire;
  int round;
  double dpm_before, dpm_after; /* KL(cloud || proxy) per token on held-out public text */
  uint64_t proxy_bytes;
};

/* An algorithm is one file: what it needs, and what a round does. */
struct foray_algo {
  const char *name, *summary;
  bool proxy, distil; /* has a proxy; it is distilled first */
  /* who takes part this round: n devices in order; steps[i] <= the full number for stragglers */
  enum foray_status (*round)(struct foray_fed *f, const int *who, const int *percent, int n,
                             struct foray_err *err);
};
extern const struct foray_algo *const FORAY_ALGOS[]; /* NULL at the end */
const struct foray_algo *foray_algo_find(const char *name);

/* What a model can do after a run. */
struct foray_score {
  int n;
  double perplexity, accuracy, rouge, rouge_stem, em_squad, em_plain,
      em; /* em: numbers behind #### where there are */
};
struct foray_fed_result {
  struct foray_score device[FORAY_FED_DEVICES], cloud,
      mean; /* mean over devices, each on its own domain(s) */
  uint64_t up, down;
  double seconds;
};

enum foray_status foray_fed_open(const struct foray_fed_config *c, struct foray_mm *gemm, FILE *log,
                                 FILE *json, const volatile sig_atomic_t *stop, struct foray_fed **out,
                                 struct foray_err *err) FORAY_NODISCARD;
void foray_fed_close(struct foray_fed *f);
/* Rounds that are left (a checkpoint in c->work is taken up), then the scores. */
enum foray_status foray_fed_run(struct foray_fed *f, struct foray_fed_result *out,
                                struct foray_err *err) FORAY_NODISCARD;
/* Who takes part in a round: n of them in who[], their share of the steps in percent[]; the others of the
 * asked ones were lost (their down-link bytes are counted by the algorithm that sends first). */
int foray_fed_draw(const struct foray_fed *f, int round, int *who, int *percent);

/* ---- steps ---- */
/* The next `n` examples of a shuffled share. */
void foray_fed_next(const struct foray_share *s, struct foray_cursor *c, uint64_t seed, uint32_t stream,
                    int n, int *out);
enum foray_status foray_slot_take(struct foray_slot *s, struct foray_learner *l,
                                  struct foray_err *err);                 /* from net */
void foray_slot_put(const struct foray_slot *s, struct foray_learner *l); /* to net */
void foray_slot_free(struct foray_slot *s);

/* Cross entropy on a share of the training data (or public data: share NULL) with the model's present
 * weights. */
enum foray_status foray_fed_ce(struct foray_fed *f, int model, const struct foray_share *share,
                               struct foray_cursor *cur, uint32_t stream, int steps,
                               struct foray_err *err) FORAY_NODISCARD;
/* The device's own model: its weights in, CE steps, out. */
enum foray_status foray_fed_device_ce(struct foray_fed *f, int device, int steps,
                                      struct foray_err *err) FORAY_NODISCARD;
/* Mutual learning of two loaded models over `steps` batches: a and b each get CE and a divergence from the
 * other. */
struct foray_pair {
  int a, b;                        /* models */
  double wa, wb;                   /* share of the divergence in their losses */
  bool train_a, train_b, gate;     /* gate: DualMinCE, learn only from one that is better on the example */
  const struct foray_share *share; /* NULL: public data */
  struct foray_cursor *cursor;
  uint32_t stream;
  int steps;
};
enum foray_status foray_fed_mutual(struct foray_fed *f, const struct foray_pair *p,
                                   struct foray_err *err) FORAY_NODISCARD;
/* Alignment from model a to model b. */
struct foray_align *foray_fed_align(const struct foray_fed *f, int a, int b);
/* weights * (a_k - base) added up into base: base += sum_k w_k delta_k. */
void foray_fed_add(float *base, const float *delta, size_t n, double weight);
/* Cuts and distils the proxy, or takes the finished one from the work folder. */
enum foray_status foray_fed_make_proxy(struct foray_fed *f, struct foray_err *err) FORAY_NODISCARD;
enum foray_status foray_fed_evaluate(struct foray_fed *f, struct foray_fed_result *out,
                                     struct foray_err *err) FORAY_NODISCARD;
enum foray_status foray_fed_stopped(const struct foray_fed *f, struct foray_err *err) FORAY_NODISCARD;
/* Result as JSON text, owned by the caller. */
char *foray_fed_result_json(const struct foray_fed *f, const struct foray_fed_result *r);

#endif
