/* cotune/config.h - the file that describes a co-tuning run: a subset of TOML ([section], [[device]], key =
 * value with strings, numbers, true/false and arrays of these), read into one struct. Unknown keys are errors
 * that name the line's section. docs/cotuning.md lists every key. */
#ifndef FORAY_COTUNE_CONFIG_H
#define FORAY_COTUNE_CONFIG_H

#include "core/args.h"
#include "train/lm.h"
#include <jansson.h>

enum { FORAY_FED_DEVICES = 64, FORAY_FED_FILES = 32, FORAY_PATH = 512, FORAY_FED_LAYERS = 128 };

/* TOML text to a tree of tables: {"section": {...}, "device": [{...}, ...]}; owned by the caller. */
enum foray_status foray_toml_parse(const char *text, const char *label, json_t **out,
                                   struct foray_err *err) FORAY_NODISCARD;

struct foray_fed_file {
  char domain[32], path[FORAY_PATH];
};
struct foray_fed_config {
  /* [run] */
  int rounds, threads;
  uint64_t seed;
  char algorithm[32], kernel[16], work[FORAY_PATH];
  /* [data] */
  struct foray_fed_file train[FORAY_FED_FILES], dev[FORAY_FED_FILES];
  int n_train, n_dev, max_chars, max_tokens, max_train, max_dev;
  double public_share; /* of the training files; the devices get the rest */
  bool dirichlet;      /* split */
  double dirichlet_alpha;
  /* [cloud] */
  char cloud[FORAY_PATH];
  double cloud_lr;
  /* [proxy] */
  int proxy_layers, distil_steps;
  double distil_lr, distil_mu;
  /* [[device]] */
  struct {
    char model[FORAY_PATH], domain[32];
  } device[FORAY_FED_DEVICES];
  int n_devices;
  /* [train] */
  int batch, dst_steps, saml_steps, server_steps, rank, private_rank, k;
  double lr, alpha, beta, gamma, tau, prox, drop, clip, decay;
  bool checkpoint, plain, rest;
  enum foray_div div;
  /* [federation] */
  double participation, straggler,
      dropout; /* shares: asked each round; doing half the steps; never answering */
  /* [privacy] */
  bool secure; /* proxy deltas cross under pairwise masks: the server learns their weighted sum alone */
  /* [eval] */
  int max_new, eval_every;
  /* [compare] */
  char algorithms[16][32];
  int n_algorithms, n_seeds;
  uint64_t seeds[32];
};
/* Paths stay relative to the current folder. FORAY_E_FORMAT, FORAY_E_ARG (out of range), with section and
 * key. */
enum foray_status foray_fed_config_read(const char *path, struct foray_fed_config *out,
                                        struct foray_err *err) FORAY_NODISCARD;
/* The same from text, for tests. */
enum foray_status foray_fed_config_parse(const char *text, const char *label, struct foray_fed_config *out,
                                         struct foray_err *err) FORAY_NODISCARD;

#endif
