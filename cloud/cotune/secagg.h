/* cotune/secagg.h - sums that a server learns without learning the parts: pairwise masks with recovery of
 * devices that drop out (after Bonawitz et al. 2017).
 *
 *   setup:   every device makes two X25519 key pairs; public keys go to all. Each splits the secret of its
 * masking key and the seed of its own mask into shares for the others (any `threshold` of them give it back).
 *   upload:  value + own mask + sum over pairs (+ for higher numbers, - for lower) modulo 2^32, fixed point
 *   sum:     the server adds what arrived. For devices that arrived it asks the shares of their own mask's
 * seed, for the others the shares of their masking key; never both of one device.
 *
 * With fewer than threshold devices nothing can be taken off, so the sum stays hidden. Devices follow the
 * protocol (honest but curious); the server sees only masked values and sums. Shares travel as plain bytes
 * here; a deployment puts each into the encrypted channel of its pair. Thread rule: one thread. */
#ifndef FORAY_COTUNE_SECAGG_H
#define FORAY_COTUNE_SECAGG_H

#include <foray/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FORAY_SECAGG_DEVICES = 64, FORAY_SECAGG_SECRET = 32 };
/* Values within +-RANGE are exact to 2^-20; sums of 64 devices do not wrap. */
#define FORAY_SECAGG_RANGE 16.0f

struct foray_secagg_share {
  uint8_t x; /* 1.. number of the holder + 1 */
  uint8_t y[FORAY_SECAGG_SECRET];
};
struct foray_secagg_device {
  int number, devices, threshold;
  uint8_t mask_secret[FORAY_SECAGG_SECRET], mask_public[FORAY_SECAGG_SECRET];
  uint8_t own_seed[FORAY_SECAGG_SECRET];
  /* what device i gave this one: shares of its masking key and of its own mask's seed */
  struct foray_secagg_share key_share[FORAY_SECAGG_DEVICES], seed_share[FORAY_SECAGG_DEVICES];
};

/* Secrets from the system's generator. */
enum foray_status foray_secagg_open(struct foray_secagg_device *d, int number, int devices, int threshold,
                                    struct foray_err *err) FORAY_NODISCARD;
/* Shares of d's two secrets for holder 0..devices-1. */
enum foray_status foray_secagg_split(const struct foray_secagg_device *d,
                                     struct foray_secagg_share *key_share,
                                     struct foray_secagg_share *seed_share,
                                     struct foray_err *err) FORAY_NODISCARD;
/* Masked fixed-point values. publics: masking keys of all devices. FORAY_E_LIMIT: a value outside +-RANGE. */
enum foray_status foray_secagg_mask(const struct foray_secagg_device *d,
                                    const uint8_t publics[][FORAY_SECAGG_SECRET], const float *v, size_t n,
                                    uint32_t *out, struct foray_err *err) FORAY_NODISCARD;
/* Server: sum over the devices with arrived[i], whose masked values were added up in acc (modulo 2^32).
 * shares: those that the holders answered with: answer[h][i] is holder h's share about device i, valid where
 * from[h]. FORAY_E_STATE with fewer than threshold holders. */
enum foray_status foray_secagg_unmask(int devices, int threshold, const bool *arrived, const bool *from,
                                      const struct foray_secagg_share answer[][FORAY_SECAGG_DEVICES],
                                      const uint8_t publics[][FORAY_SECAGG_SECRET], const uint32_t *acc,
                                      size_t n, float *sum, struct foray_err *err) FORAY_NODISCARD;

/* Shamir's sharing of 32 bytes over GF(256); exposed for the tests. */
enum foray_status foray_shamir_split(const uint8_t secret[FORAY_SECAGG_SECRET], int shares, int threshold,
                                     struct foray_secagg_share *out, struct foray_err *err) FORAY_NODISCARD;
void foray_shamir_join(const struct foray_secagg_share *s, int n, uint8_t secret[FORAY_SECAGG_SECRET]);

#endif
