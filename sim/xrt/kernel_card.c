/* The card model (sim/card) as a kernel model: what an xclbin for `foray --device xrt` holds until, and
 * besides, the Verilated foray_top. $FORAY_SIM_DEVICE names the device class behind the registers (default
 * ref). */
#include "kernel_api.h"

#include "card/card.h"

#include <stdio.h>
#include <stdlib.h>

struct unit {
  struct foray_sim_memory mem;
  struct foray_card *card;
};

static void *create(const char *name, const struct foray_sim_memory *mem) {
  const char *device = getenv("FORAY_SIM_DEVICE");
  struct foray_err err = {0};
  uint64_t base = 0, bytes = 0;
  struct unit *u = calloc(1, sizeof *u);
  uint8_t *p = mem->direct(mem->ctx, 0, 64, &base, &bytes); /* bank 0 begins at address 0 */
  if (!u || !p) {
    free(u);
    fprintf(stderr, "%s: the xclbin has no memory bank at address 0\n", name);
    return NULL;
  }
  u->mem = *mem;
  const struct foray_card_opts o = {
      .device = device ? device : "ref", .mem = p, .mem_bytes = bytes, .mem_base = base};
  if (foray_card_open(&o, &u->card, &err) != FORAY_OK) {
    fprintf(stderr, "%s: %s\n", name, err.msg);
    free(u);
    return NULL;
  }
  return u;
}

static void destroy(void *k) {
  struct unit *u = k;
  foray_card_close(u->card);
  free(u);
}
static void reg_write(void *k, uint32_t at, uint32_t v) { foray_card_write(((struct unit *)k)->card, at, v); }
static uint32_t reg_read(void *k, uint32_t at) { return foray_card_read(((struct unit *)k)->card, at); }
static int step(void *k, uint32_t n) {
  (void)k, (void)n;
  return 0; /* it has a thread */
}

extern __attribute__((visibility("default"))) const struct foray_sim_kernel foray_sim_kernel;
const struct foray_sim_kernel foray_sim_kernel = {
    FORAY_SIM_KERNEL_VERSION, create, destroy, reg_write, reg_read, step};
